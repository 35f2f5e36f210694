//! Which rank this process is, from the environment that a launcher sets, and which ranks are as one.

use std::ops::Range;

use squall_schema::{Error, Result};

/// Which ranks take the same samples: those of a tensor or pipeline parallel group.
///
/// To the order a group is one rank: the batch size is that of a group, and the global batch is that of all groups together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topology(Groups);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Groups {
    Consecutive(u64),
    Strided(u64),
    Listed(Vec<Vec<u64>>),
}

impl Topology {
    /// Groups of so many consecutive ranks, as Mosaic Streaming's `replication`: with 2, ranks 0 and 1, 2 and 3, …
    pub fn consecutive(ranks: u64) -> Self {
        Self(Groups::Consecutive(ranks))
    }

    /// Groups of so many ranks that are equally far apart: of 8 ranks with 2, ranks 0 and 4, 1 and 5, …
    pub fn strided(ranks: u64) -> Self {
        Self(Groups::Strided(ranks))
    }

    /// These groups. Each rank stands in one of them; they may differ in size.
    pub fn groups<G: Into<Vec<u64>>>(groups: impl IntoIterator<Item = G>) -> Self {
        Self(Groups::Listed(groups.into_iter().map(Into::into).collect()))
    }

    /// The place of a rank in its group, from 0; `None` where groups differ in size.
    pub(crate) fn replica(&self, rank: u64, world_size: u64) -> Result<Option<u64>> {
        let (_, groups) = self.group(rank, world_size)?;
        Ok(match &self.0 {
            Groups::Consecutive(ranks) => Some(rank % ranks),
            Groups::Strided(_) => Some(rank / groups),
            Groups::Listed(groups) => {
                let alike = groups.windows(2).all(|pair| pair[0].len() == pair[1].len());
                let place = groups
                    .iter()
                    .find_map(|group| group.iter().position(|own| *own == rank));
                place.filter(|_| alike).map(|place| place as u64)
            }
        })
    }

    /// The group of each rank, in the order of the ranks.
    pub(crate) fn group_of_each(&self, world_size: u64) -> Result<Vec<u64>> {
        if let Groups::Listed(groups) = &self.0 {
            self.group(0, world_size)?;
            let of_group =
                |(own, ranks): (u64, &Vec<u64>)| ranks.iter().map(move |rank| (*rank, own)).collect::<Vec<_>>();
            let mut of_rank: Vec<_> = (0..).zip(groups).flat_map(of_group).collect();
            of_rank.sort_unstable();
            return Ok(of_rank.into_iter().map(|(_, own)| own).collect());
        }
        (0..world_size)
            .map(|rank| Ok(self.group(rank, world_size)?.0))
            .collect()
    }

    /// The group of a rank, from 0, and the number of groups.
    pub(crate) fn group(&self, rank: u64, world_size: u64) -> Result<(u64, u64)> {
        if rank >= world_size {
            return Err(Error::invalid(format!(
                "expected a rank below the world size {world_size}, found {rank}"
            )));
        }
        match &self.0 {
            Groups::Consecutive(ranks) | Groups::Strided(ranks) => {
                if *ranks == 0 || !world_size.is_multiple_of(*ranks) {
                    return Err(Error::invalid(format!(
                        "expected groups of a number of ranks that divides the world size {world_size}, found {ranks}"
                    )));
                }
                let groups = world_size / ranks;
                Ok(match self.0 {
                    Groups::Consecutive(_) => (rank / ranks, groups),
                    _ => (rank % groups, groups),
                })
            }
            Groups::Listed(groups) => {
                let mut ranks: Vec<_> = groups.iter().flatten().copied().collect();
                ranks.sort_unstable();
                if groups.iter().any(Vec::is_empty) || !ranks.iter().copied().eq(0..world_size) {
                    return Err(Error::invalid(format!(
                        "expected groups that hold each of the ranks 0 to {} once, found {groups:?}",
                        world_size.saturating_sub(1)
                    )));
                }
                let own = (0u64..).zip(groups).find(|(_, group)| group.contains(&rank));
                let (own, _) = own.ok_or_else(|| {
                    Error::invalid(format!(
                        "expected a rank below the world size {world_size}, found {rank}"
                    ))
                })?;
                Ok((own, groups.len() as u64))
            }
        }
    }
}

/// The variables of a launcher.
struct Launcher {
    rank: &'static str,
    world_size: &'static str,
}

/// In this order: what is started inside of another, torchrun in a job of SLURM, is the one that counts processes.
const LAUNCHERS: [Launcher; 5] = [
    // torchrun
    Launcher {
        rank: "RANK",
        world_size: "WORLD_SIZE",
    },
    // Horovod
    Launcher {
        rank: "HOROVOD_RANK",
        world_size: "HOROVOD_SIZE",
    },
    // Open MPI
    Launcher {
        rank: "OMPI_COMM_WORLD_RANK",
        world_size: "OMPI_COMM_WORLD_SIZE",
    },
    // MPICH and its kin
    Launcher {
        rank: "PMI_RANK",
        world_size: "PMI_SIZE",
    },
    // srun. SLURM_NTASKS stands in a batch script too, which is one process and has the rank 0.
    Launcher {
        rank: "SLURM_PROCID",
        world_size: "SLURM_STEP_NUM_TASKS",
    },
];

/// Rank and world size of the first launcher that set its variables; `None` where there is none.
pub(crate) fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Option<(u64, u64)>> {
    let number = |name: &str| -> Result<Option<u64>> {
        let Some(text) = get(name) else {
            return Ok(None);
        };
        let number = text.trim().parse();
        let wrong = |_| {
            Error::invalid(format!(
                "expected a number in the environment variable {name}, found {text:?}"
            ))
        };
        number.map(Some).map_err(wrong)
    };
    for launcher in LAUNCHERS {
        let missing = match (number(launcher.rank)?, number(launcher.world_size)?) {
            (Some(rank), Some(world_size)) => return Ok(Some((rank, world_size))),
            (None, None) => continue,
            // The shell of a batch script.
            (Some(_), None) if launcher.rank == "SLURM_PROCID" => continue,
            (Some(_), None) => [launcher.rank, launcher.world_size],
            (None, Some(_)) => [launcher.world_size, launcher.rank],
        };
        let [set, missing] = missing;
        return Err(Error::invalid(format!(
            "the environment variable {set} is set, but {missing} is not"
        )));
    }
    Ok(None)
}

/// The variables of a launcher that tell of this machine: the rank there, and the number of ranks.
const ON_MACHINE: [[&str; 2]; 5] = [
    ["LOCAL_RANK", "LOCAL_WORLD_SIZE"],
    ["HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"],
    ["OMPI_COMM_WORLD_LOCAL_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE"],
    ["MPI_LOCALRANKID", "MPI_LOCALNRANKS"],
    ["SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"],
];

/// The ranks of this machine, if a launcher says so and numbers them in a row, as launchers do unless told otherwise; all ranks if
/// not. Only what a cache keeps depends on it.
pub(crate) fn of_machine(rank: u64, world_size: u64, get: impl Fn(&str) -> Option<String>) -> Range<u64> {
    let of_launcher = |[place, size]: [&str; 2]| -> Option<Range<u64>> {
        let place: u64 = get(place)?.trim().parse().ok()?;
        let size = get(size)?;
        // SLURM writes 4(x2) of two machines with 4 ranks each, and 4,3 where they differ.
        let size = size
            .trim()
            .split_once("(x")
            .map_or(size.trim(), |(size, _)| size)
            .parse::<u64>()
            .ok()?;
        let first = rank.checked_sub(place)?;
        let end = first.checked_add(size)?;
        (place < size && end <= world_size).then_some(first..end)
    };
    match from_env(&get) {
        Ok(Some(own)) if own == (rank, world_size) => ON_MACHINE.into_iter().find_map(of_launcher),
        _ => None,
    }
    .unwrap_or(0..world_size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranks_of_a_machine_are_those_that_the_launcher_says() {
        let check = |variables: &[(&str, &str)], expected| {
            let get = |name: &str| {
                let found = variables.iter().find(|(own, _)| *own == name);
                found.map(|(_, value)| (*value).to_owned())
            };
            assert_eq!(of_machine(5, 8, get), expected, "{variables:?}");
        };
        let torchrun = |rank, world, local: &'static str, size: &'static str| {
            [
                ("RANK", rank),
                ("WORLD_SIZE", world),
                ("LOCAL_RANK", local),
                ("LOCAL_WORLD_SIZE", size),
            ]
        };
        check(&[], 0..8);
        check(&torchrun("5", "8", "1", "4"), 4..8);
        check(&torchrun("5", "8", "1", "2"), 4..6);
        // Numbers that do not go together are those of something else.
        check(&torchrun("4", "8", "1", "4"), 0..8);
        check(&torchrun("5", "8", "6", "8"), 0..8);
        check(&torchrun("5", "8", "1", "5"), 0..8);
        check(&torchrun("5", "8", "1", "many"), 0..8);
        let slurm = |size: &'static str| {
            [
                ("SLURM_PROCID", "5"),
                ("SLURM_STEP_NUM_TASKS", "8"),
                ("SLURM_LOCALID", "1"),
                ("SLURM_STEP_TASKS_PER_NODE", size),
            ]
        };
        check(&slurm("4(x2)"), 4..8);
        check(&slurm("4"), 4..8);
        check(&slurm("4,3"), 0..8);
    }

    fn check(variables: &[(&str, &str)], expected: &str) {
        let get = |name: &str| {
            variables
                .iter()
                .find(|(own, _)| *own == name)
                .map(|(_, value)| (*value).to_owned())
        };
        let found = match from_env(get) {
            Ok(found) => format!("{found:?}"),
            Err(error) => error.to_string(),
        };
        assert_eq!(found, expected);
    }

    #[test]
    fn the_innermost_launcher_counts() {
        let horovod = [("HOROVOD_RANK", "2"), ("HOROVOD_SIZE", "3")];
        let mpi = [("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "2")];
        let slurm = [
            ("SLURM_PROCID", "5"),
            ("SLURM_STEP_NUM_TASKS", "8"),
            ("SLURM_NTASKS", "8"),
        ];
        check(&[&mpi[..], &horovod].concat(), "Some((2, 3))");
        check(&[&slurm[..], &mpi].concat(), "Some((1, 2))");
        check(&[("PMI_RANK", "0"), ("PMI_SIZE", "2")], "Some((0, 2))");
        check(&slurm, "Some((5, 8))");
        check(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "8")], "None");
        check(
            &[("HOROVOD_SIZE", "2"), ("RANK", "0"), ("WORLD_SIZE", "4")],
            "Some((0, 4))",
        );
        check(
            &[("HOROVOD_SIZE", "2")],
            "the environment variable HOROVOD_SIZE is set, but HOROVOD_RANK is not",
        );
    }

    #[test]
    fn ranks_of_a_group_are_one() {
        let all = |topology: Topology, world_size| -> Vec<(u64, u64)> {
            let group = |rank| topology.group(rank, world_size).expect("a group");
            (0..world_size).map(group).collect()
        };
        for topology in [
            Topology::consecutive(2),
            Topology::strided(4),
            Topology::groups([vec![7, 0, 3], vec![1], vec![2, 5, 4, 6]]),
        ] {
            let groups: Vec<_> = all(topology.clone(), 8).into_iter().map(|(group, _)| group).collect();
            assert_eq!(topology.group_of_each(8).expect("groups"), groups, "{topology:?}");
        }
        assert_eq!(all(Topology::consecutive(2), 4), [(0, 2), (0, 2), (1, 2), (1, 2)]);
        assert_eq!(all(Topology::strided(2), 4), [(0, 2), (1, 2), (0, 2), (1, 2)]);
        assert_eq!(
            all(Topology::groups([vec![2, 0], vec![1]]), 3),
            [(0, 2), (1, 2), (0, 2)]
        );
        let wrong = |topology: Topology| topology.group(0, 4).expect_err("wrong").to_string();
        assert!(wrong(Topology::consecutive(3)).contains("divides the world size 4, found 3"));
        assert!(wrong(Topology::strided(0)).contains("found 0"));
        assert!(wrong(Topology::groups([vec![0, 1], vec![1, 2, 3]])).contains("each of the ranks 0 to 3 once"));
    }

    #[test]
    fn torchruns_variables_are_read() {
        check(&[("RANK", "1"), ("WORLD_SIZE", "4")], "Some((1, 4))");
        check(&[], "None");
        check(
            &[("RANK", "1")],
            "the environment variable RANK is set, but WORLD_SIZE is not",
        );
        check(
            &[("RANK", "x"), ("WORLD_SIZE", "4")],
            "expected a number in the environment variable RANK, found \"x\"",
        );
    }
}
