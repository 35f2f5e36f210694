//! Which rank this process is, from the environment that a launcher sets.

use squall_schema::{Error, Result};

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

#[cfg(test)]
mod tests {
    use super::*;

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
