//! The promises of the order, through the public API and real files.
//!
//! What readers deliver is held against `docs/order.md`: [`Model`] is its section "From samples to ranks", written once more
//! in the plainest way, without a line of the reader's own code but [`Order::locate`].

use proptest::prelude::*;
use squall_reader::{
    BatchReader, Order, OrderOptions, ReaderBuilder, ReaderState, Remainder, Share, Shuffle, make_batch_reader,
};
use squall_schema::RowId;
use squall_testkit::{Layout, Table};

use crate::batches;

const REMAINDERS: [Remainder; 3] = [Remainder::Keep, Remainder::Drop, Remainder::Pad];
const SHUFFLES: [Shuffle; 3] = [Shuffle::None, Shuffle::Windows, Shuffle::Full];

/// A row as it is delivered: its sample, and whether it is padding.
type Taken = (u64, bool);

/// What `docs/order.md` says of an epoch and its ranks.
struct Model<'a> {
    order: &'a Order,
    global_batch: u64,
    remainder: Remainder,
}

impl Model<'_> {
    /// The rows of each global batch from sample `next` on, in the order in which they are cut into slices.
    fn global_batches(&self, next: u64) -> Vec<Vec<Taken>> {
        let lanes = self.order.lanes();
        let by_lane = |mut samples: Vec<u64>| {
            samples.sort_by_key(|sample| (sample % lanes, sample / lanes));
            samples
        };
        let mut batches = Vec::new();
        let left: Vec<_> = (next..self.order.len()).collect();
        for samples in left.chunks(self.global_batch as usize) {
            let mut missing = self.global_batch - samples.len() as u64;
            if missing > 0 && self.remainder == Remainder::Drop {
                break;
            }
            let mut batch: Vec<_> = by_lane(samples.to_vec())
                .into_iter()
                .map(|sample| (sample, false))
                .collect();
            while missing > 0 && self.remainder == Remainder::Pad {
                let pass = missing.min(self.order.len());
                batch.extend(by_lane((0..pass).collect()).into_iter().map(|sample| (sample, true)));
                missing -= pass;
            }
            batches.push(batch);
        }
        batches
    }

    /// The slices of all ranks, of each global batch.
    fn slices(&self, next: u64, world_size: u64) -> Vec<Vec<Vec<Taken>>> {
        let cut = |mut batch: Vec<Taken>| {
            (0..world_size as usize)
                .map(|rank| {
                    let ranks = world_size as usize;
                    // All slices have the same length; in a short batch the first ones have one row more.
                    let ranks_left = ranks - rank;
                    batch.drain(..batch.len().div_ceil(ranks_left)).collect()
                })
                .collect()
        };
        self.global_batches(next).into_iter().map(cut).collect()
    }
}

/// A table, and how its rows are ordered.
#[derive(Debug, Clone)]
struct Setting {
    layout: Layout,
    options: OrderOptions,
}

impl Setting {
    fn any(most_rows: usize) -> impl Strategy<Value = Self> {
        let layout = (
            prop::collection::vec(1..most_rows, 1..4),
            1usize..20,
            1usize..8,
            any::<bool>(),
        );
        let options = (prop::sample::select(SHUFFLES.to_vec()), any::<u64>(), 1u64..9, 1u64..20);
        (layout, options).prop_map(|((files, row_group, page, page_index), options)| {
            let layout = Layout {
                files,
                row_group,
                page,
                page_index,
            };
            let (shuffle, seed, lanes, window) = options;
            let options = OrderOptions {
                shuffle,
                seed,
                lanes,
                window,
            };
            Self { layout, options }
        })
    }

    /// Rows of each row group, in the order of the dataset.
    fn rows_per_piece(&self) -> Vec<u64> {
        let mut pieces = Vec::new();
        for file in &self.layout.files {
            let mut left = *file;
            while left > 0 {
                let rows = left.min(self.layout.row_group);
                pieces.push(rows as u64);
                left -= rows;
            }
        }
        pieces
    }

    fn order(&self, epoch: u64) -> Order {
        Order::new(&self.rows_per_piece(), &self.options, epoch).expect("an order")
    }

    fn reader(&self, table: &Table) -> ReaderBuilder<BatchReader> {
        let OrderOptions {
            shuffle,
            seed,
            lanes,
            window,
        } = self.options;
        make_batch_reader(table.url())
            .columns(["id"])
            .shuffle(shuffle)
            .seed(seed)
            .lanes(lanes)
            .window(window)
            .workers(2)
    }
}

/// The batches of all ranks, a list of ranks of lists of batches.
fn read_ranks(world_size: u64, reader: impl Fn() -> ReaderBuilder<BatchReader>) -> Vec<Vec<Vec<(i32, RowId)>>> {
    (0..world_size)
        .map(|rank| batches(reader().rank(rank, world_size).build().expect("a reader")))
        .collect()
}

fn sorted(mut rows: Vec<Taken>) -> Vec<Taken> {
    rows.sort_unstable();
    rows
}

/// Holds what the ranks read, from epoch `epoch` and sample `next` on, against the model; also which row each sample is.
fn check_against_model(
    setting: &Setting,
    (mut epoch, mut next): (u64, u64),
    epochs: u64,
    (global_batch, remainder): (u64, Remainder),
    ranks: &[Vec<Vec<(i32, RowId)>>],
) -> Result<(), TestCaseError> {
    let pieces = setting.rows_per_piece();
    let first_id = |piece: u32| pieces[..piece as usize].iter().sum::<u64>();
    let mut step = 0;
    while epoch < epochs {
        let order = setting.order(epoch);
        let model = Model {
            order: &order,
            global_batch,
            remainder,
        };
        for slices in model.slices(next, ranks.len() as u64) {
            for (rank, (own, expected)) in ranks.iter().zip(slices).enumerate() {
                let Some(batch) = own.get(step) else {
                    return Err(TestCaseError::fail(format!("rank {rank} has no step {step}")));
                };
                let taken = batch.iter().map(|(_, id)| (id.sample, id.padded)).collect();
                prop_assert_eq!(sorted(taken), sorted(expected), "step {} of rank {}", step, rank);
                for (id, place) in batch {
                    prop_assert_eq!(place.epoch, epoch);
                    prop_assert_eq!(order.locate(place.sample), Some((place.piece, place.row)));
                    prop_assert_eq!(*id as u64, first_id(place.piece) + place.row);
                }
            }
            step += 1;
        }
        (epoch, next) = (epoch + 1, 0);
    }
    prop_assert!(ranks.iter().all(|own| own.len() == step), "unequal numbers of steps");
    Ok(())
}

/// Whole epochs are read by this many ranks.
fn check_world(setting: &Setting, world_size: u64, batch_size: u64, remainder: Remainder) -> Result<(), TestCaseError> {
    let table = Table::write(&setting.layout);
    let epochs = 2;
    let ranks = read_ranks(world_size, || {
        setting
            .reader(&table)
            .batch_size(batch_size)
            .remainder(remainder)
            .epochs(epochs)
    });
    check_against_model(setting, (0, 0), epochs, (world_size * batch_size, remainder), &ranks)
}

#[test]
fn sixty_four_ranks_share_a_table() {
    let options = OrderOptions {
        shuffle: Shuffle::Windows,
        seed: 11,
        lanes: 24,
        window: 9,
    };
    // More ranks than rows, than lanes, than row groups; and fewer.
    for (files, batch_size, remainder) in [
        (vec![13, 7], 1, Remainder::Keep),
        (vec![13, 7], 2, Remainder::Pad),
        (vec![200, 150, 11], 2, Remainder::Drop),
        (vec![200, 150, 11], 3, Remainder::Keep),
    ] {
        let layout = Layout {
            files,
            ..Layout::default()
        };
        let options = options.clone();
        check_world(&Setting { layout, options }, 64, batch_size, remainder).expect("the order of the documentation");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// Each rank delivers at each step the slice that the documentation says, in equal steps; together all rows, once an
    /// epoch.
    #[test]
    fn ranks_deliver_the_slices_of_the_documentation(
        setting in Setting::any(60), world_size in 1u64..9, batch_size in 1u64..10,
        remainder in prop::sample::select(REMAINDERS.to_vec()),
    ) {
        check_world(&setting, world_size, batch_size, remainder)?;
    }

    /// A global batch is a set of rows whatever the number of ranks.
    #[test]
    fn global_batches_do_not_depend_on_the_world_size(
        setting in Setting::any(60), global_batch in prop::sample::select(vec![12u64, 16, 30, 48]),
        remainder in prop::sample::select(REMAINDERS.to_vec()),
    ) {
        let table = Table::write(&setting.layout);
        let read = |world_size| {
            let ranks = read_ranks(world_size, || {
                setting.reader(&table).global_batch(global_batch).remainder(remainder).epochs(2)
            });
            let steps = ranks[0].len();
            assert!(ranks.iter().all(|own| own.len() == steps));
            let together = |step: usize| {
                let mut rows: Vec<_> = ranks.iter().flat_map(|own| &own[step])
                    .map(|(id, place)| (place.epoch, *id, place.sample, place.padded)).collect();
                rows.sort_unstable();
                rows
            };
            (0..steps).map(together).collect::<Vec<_>>()
        };
        let alone = read(1);
        for world_size in (2..=8).filter(|world_size| global_batch % world_size == 0) {
            prop_assert_eq!(&read(world_size), &alone, "{} ranks", world_size);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(5))]

    /// The same with up to 64 ranks, in fewer cases for the sake of time.
    #[test]
    fn many_ranks_deliver_the_slices_of_the_documentation(
        setting in Setting::any(150), world_size in 9u64..=64, batch_size in 1u64..5,
        remainder in prop::sample::select(REMAINDERS.to_vec()),
    ) {
        check_world(&setting, world_size, batch_size, remainder)?;
    }
}

/// A part of a run: so many ranks, rows of a rank's batch, and steps until it is stopped.
type Leg = (u64, u64, usize);

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    /// A run that is stopped again and again, each time after any batch, and goes on with another world size and another
    /// global batch, delivers what is left and nothing else; all ranks save the same state.
    #[test]
    fn a_run_goes_on_behind_any_batch(
        setting in Setting::any(60), legs in prop::collection::vec((1u64..7, 1u64..9, 0usize..30), 1..4),
        last in (1u64..7, 1u64..9), remainder in prop::sample::select(REMAINDERS.to_vec()),
    ) {
        let table = Table::write(&setting.layout);
        let epochs = 3;
        let mut state: Option<ReaderState> = None;
        let mut delivered: Vec<(u64, Taken)> = Vec::new();
        let mut dropped = 0;
        for leg in legs.into_iter().chain([(last.0, last.1, usize::MAX)]) {
            let (world_size, batch_size, steps): Leg = leg;
            let begin = state.as_ref().map_or((0, 0), |state| (state.epoch, state.next));
            let mut ranks = Vec::new();
            let mut states = Vec::new();
            for rank in 0..world_size {
                let reader = setting.reader(&table).rank(rank, world_size).batch_size(batch_size);
                let reader = reader.remainder(remainder).epochs(epochs);
                let reader = match &state {
                    Some(state) => reader.resume(state.clone()),
                    None => reader,
                };
                let mut reader = reader.build().expect("a reader");
                let mut own = Vec::new();
                while own.len() < steps && let Some(batch) = reader.next_samples() {
                    own.push(batch.expect("a batch"));
                }
                states.push(reader.state().to_json());
                ranks.push(own);
            }
            for text in &states {
                prop_assert_eq!(text, &states[0], "the ranks' states differ");
                prop_assert!(text.len() <= 200, "{} bytes", text.len());
            }
            let expected = run(&setting, begin, epochs, (world_size * batch_size, remainder), world_size);
            prop_assert!(steps < expected.len() || ranks[0].len() == expected.len());
            for (rank, own) in ranks.iter().enumerate() {
                prop_assert_eq!(own.len(), steps.min(expected.len()), "steps of rank {}", rank);
                for (batch, (epoch, slices)) in own.iter().zip(&expected) {
                    let taken: Vec<_> = batch.ids.iter().map(|id| (id.sample, id.padded)).collect();
                    prop_assert!(batch.epoch == *epoch && batch.ids.iter().all(|id| id.epoch == *epoch));
                    prop_assert_eq!(sorted(taken.clone()), sorted(slices[rank].clone()));
                    delivered.extend(taken.into_iter().map(|taken| (*epoch, taken)));
                }
            }
            let saved = ReaderState::from_json(&states[0]).expect("own text");
            if remainder == Remainder::Drop {
                // Rows that a leg left out at the end of an epoch are not delivered later.
                let rows = setting.order(0).len();
                let place = |(epoch, next): (u64, u64)| epoch * rows + next;
                let end = if steps == usize::MAX { (epochs, 0) } else { (saved.epoch, saved.next) };
                let taken: usize = ranks.iter().flatten().map(|batch| batch.ids.len()).sum();
                dropped += place(end) - place(begin) - taken as u64;
            }
            state = Some(saved);
        }
        let rows = setting.order(0).len();
        let mut rows_delivered: Vec<_> = delivered.into_iter().filter(|(_, (_, padded))| !padded).collect();
        rows_delivered.sort_unstable();
        let n = rows_delivered.len() as u64;
        rows_delivered.dedup();
        prop_assert_eq!(rows_delivered.len() as u64, n, "a row came twice");
        prop_assert_eq!(n + dropped, epochs * rows);
        if remainder != Remainder::Drop {
            prop_assert_eq!(dropped, 0);
        }
    }

    /// Numbers that a reader's file need not have: up to 64 ranks, a thousand row groups, windows and lanes of any size.
    #[test]
    fn steps_are_those_of_the_batches_that_are_left(
        pieces in prop::collection::vec(0u64..50, 0..40), lanes in 1u64..80, window in 1u64..100,
        world_size in 1u64..=64, batch_size in 1u64..20, seed: u64, at: prop::sample::Index,
        shuffle in prop::sample::select(SHUFFLES.to_vec()),
    ) {
        let options = OrderOptions { shuffle, seed, lanes, window };
        let order = Order::new(&pieces, &options, 1).expect("an order");
        let next = at.index(order.len() as usize + 1) as u64;
        for remainder in REMAINDERS {
            let model = Model { order: &order, global_batch: world_size * batch_size, remainder };
            let slices = model.slices(next, world_size);
            for rank in 0..world_size {
                let share = Share::of_batch_size(rank, world_size, batch_size, remainder).expect("a share");
                prop_assert_eq!(share.steps(order.len(), next), slices.len() as u64);
            }
            let sizes: Vec<Vec<_>> = slices.iter().map(|ranks| ranks.iter().map(Vec::len).collect()).collect();
            for (step, sizes) in sizes.iter().enumerate() {
                let (most, least) = (sizes.iter().max(), sizes.iter().min());
                prop_assert!(most.zip(least).is_some_and(|(most, least)| most - least <= 1), "{:?}", sizes);
                let full = most == least && most == Some(&(batch_size as usize));
                prop_assert!(full || (remainder == Remainder::Keep && step + 1 == slices.len()));
            }
            let taken = slices.into_iter().flatten().flatten().filter(|(_, padded)| !padded);
            let mut rows: Vec<_> = taken.map(|(sample, _)| order.locate(sample)).collect();
            let n = rows.len();
            rows.sort_unstable();
            rows.dedup();
            prop_assert!(rows.len() == n && !rows.contains(&None));
            prop_assert!(remainder == Remainder::Drop || n as u64 == order.len() - next);
        }
    }
}

/// The epochs and slices of the steps of a run that begins at an epoch and a sample.
fn run(
    setting: &Setting,
    (mut epoch, mut next): (u64, u64),
    epochs: u64,
    (global_batch, remainder): (u64, Remainder),
    world_size: u64,
) -> Vec<(u64, Vec<Vec<Taken>>)> {
    let mut steps = Vec::new();
    while epoch < epochs {
        let order = setting.order(epoch);
        let model = Model {
            order: &order,
            global_batch,
            remainder,
        };
        steps.extend(model.slices(next, world_size).into_iter().map(|slices| (epoch, slices)));
        (epoch, next) = (epoch + 1, 0);
    }
    steps
}
