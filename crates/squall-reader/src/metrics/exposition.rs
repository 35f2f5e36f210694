//! Metrics in the text format of Prometheus.
//!
//! The format is version 0.0.4 of <https://prometheus.io/docs/instrumenting/exposition_formats/>: all samples of a metric stand
//! together behind its help and its type.

use std::fmt::Write;
use std::time::Duration;

use crate::metrics::{LoaderTimes, Metrics, Stage, StageTimes};

/// The content type of the format.
pub(crate) const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// All stages that may limit.
const STAGES: [Stage; 10] = [
    Stage::Fetch,
    Stage::Memory,
    Stage::Decode,
    Stage::Gather,
    Stage::Cells,
    Stage::Transform,
    Stage::HandOver,
    Stage::Collate,
    Stage::Sink,
    Stage::Consumer,
];

impl Metrics {
    /// The metrics in the text format of Prometheus, version 0.0.4, with the labels `dataset` and `rank`.
    ///
    /// Behind the feature `prometheus`.
    pub fn to_prometheus(&self) -> String {
        to_prometheus(&[(None, self.clone())])
    }
}

/// A metric: its name, what it says, and its samples in a snapshot; one whose name ends in `_total` only grows.
struct Family {
    name: &'static str,
    help: &'static str,
    samples: fn(&Metrics) -> Vec<Sample>,
}

/// Its own labels, and its value.
type Sample = (Vec<(&'static str, &'static str)>, f64);

const FAMILIES: [Family; 32] = [
    Family {
        name: "squall_rows_total",
        help: "Rows that were handed out.",
        samples: |m| one(m.rows),
    },
    Family {
        name: "squall_batches_total",
        help: "Batches that were handed out.",
        samples: |m| one(m.batches),
    },
    Family {
        name: "squall_bad_rows_total",
        help: "Bad rows that were skipped.",
        samples: |m| one(m.bad_rows),
    },
    Family {
        name: "squall_fetched_bytes_total",
        help: "Bytes of files that came in.",
        samples: |m| one(m.bytes_fetched),
    },
    Family {
        name: "squall_decoded_bytes_total",
        help: "Bytes of columns that were decoded, cells still encoded.",
        samples: |m| one(m.bytes_decoded),
    },
    Family {
        name: "squall_built_bytes_total",
        help: "Bytes of batches that were built.",
        samples: |m| one(m.bytes_built),
    },
    Family {
        name: "squall_wall_seconds_total",
        help: "Time since the first batch was asked for, to the end of the data.",
        samples: |m| time(m.wall),
    },
    Family {
        name: "squall_first_batch_seconds",
        help: "How long the first batch took.",
        samples: |m| m.first_batch.map(time).unwrap_or_default(),
    },
    Family {
        name: "squall_stage_seconds_total",
        help: "Time of a stage, summed over its threads: busy, starved of input, blocked by what comes behind it or by memory.",
        samples: |m| {
            let stages = [
                ("fetch", m.fetch),
                ("decode", m.decode),
                ("build", m.build),
                ("consumer", m.consumer),
            ];
            stages.into_iter().flat_map(stage).collect()
        },
    },
    Family {
        name: "squall_stage_jobs_total",
        help: "Jobs of a stage that were done.",
        samples: |m| {
            [("fetch", m.fetch), ("decode", m.decode), ("build", m.build)]
                .map(|(stage, times)| (vec![("stage", stage)], times.jobs as f64))
                .to_vec()
        },
    },
    Family {
        name: "squall_build_seconds_total",
        help: "Time of the parts of building batches, summed over threads.",
        samples: |m| {
            labelled(
                "part",
                [
                    ("gather", m.build_parts.gather),
                    ("cells", m.build_parts.cells),
                    ("transform", m.build_parts.transform),
                ],
            )
        },
    },
    Family {
        name: "squall_waited_for_seconds_total",
        help: "What the caller of the reader waited for behind the first batch.",
        samples: |m| {
            labelled(
                "lacking",
                [
                    ("fetch", m.waited_for.fetch),
                    ("memory", m.waited_for.memory),
                    ("workers", m.waited_for.workers),
                    ("hand_over", m.waited_for.hand_over),
                ],
            )
        },
    },
    Family {
        name: "squall_loader_seconds_total",
        help: "Time of the loader's thread.",
        samples: |m| {
            let times = |loader: LoaderTimes| {
                labelled(
                    "state",
                    [
                        ("collate", loader.collate),
                        ("sink", loader.sink),
                        ("starved", loader.starved),
                        ("blocked", loader.blocked),
                    ],
                )
            };
            m.loader.map(times).unwrap_or_default()
        },
    },
    Family {
        name: "squall_storage_requests_total",
        help: "Requests to the store, those sent again included.",
        samples: |m| one(m.storage.requests),
    },
    Family {
        name: "squall_storage_retries_total",
        help: "Requests to the store that were sent again.",
        samples: |m| one(m.storage.retries),
    },
    Family {
        name: "squall_storage_throttled_total",
        help: "Requests that were sent again because the store asked for fewer.",
        samples: |m| one(m.storage.throttled),
    },
    Family {
        name: "squall_storage_hedges_sent_total",
        help: "Second requests that were sent because the first one was slow.",
        samples: |m| one(m.storage.hedges_sent),
    },
    Family {
        name: "squall_storage_hedges_won_total",
        help: "Second requests whose answer was taken.",
        samples: |m| one(m.storage.hedges_won),
    },
    Family {
        name: "squall_cache_hits_total",
        help: "Ranges that the local cache had.",
        samples: |m| m.cache.map(|cache| one(cache.hits)).unwrap_or_default(),
    },
    Family {
        name: "squall_cache_misses_total",
        help: "Ranges that the local cache had not.",
        samples: |m| m.cache.map(|cache| one(cache.misses)).unwrap_or_default(),
    },
    Family {
        name: "squall_cache_hit_bytes_total",
        help: "Bytes that came from the local cache.",
        samples: |m| m.cache.map(|cache| one(cache.hit_bytes)).unwrap_or_default(),
    },
    Family {
        name: "squall_cache_miss_bytes_total",
        help: "Bytes that the local cache had not.",
        samples: |m| m.cache.map(|cache| one(cache.miss_bytes)).unwrap_or_default(),
    },
    Family {
        name: "squall_cache_evictions_total",
        help: "Entries of the local cache that had to go.",
        samples: |m| m.cache.map(|cache| one(cache.evictions)).unwrap_or_default(),
    },
    Family {
        name: "squall_cache_damaged_total",
        help: "Entries of the local cache that were damaged.",
        samples: |m| m.cache.map(|cache| one(cache.damaged)).unwrap_or_default(),
    },
    Family {
        name: "squall_cache_failures_total",
        help: "Reads and writes of the local cache that failed.",
        samples: |m| m.cache.map(|cache| one(cache.failures)).unwrap_or_default(),
    },
    Family {
        name: "squall_memory_budget_bytes",
        help: "The byte budget.",
        samples: |m| m.memory.budget.map(one).unwrap_or_default(),
    },
    Family {
        name: "squall_memory_in_use_bytes",
        help: "Bytes that are taken of the budget.",
        samples: |m| one(m.memory.in_use),
    },
    Family {
        name: "squall_memory_high_water_bytes",
        help: "The most that was taken of the budget at any time.",
        samples: |m| one(m.memory.high_water),
    },
    Family {
        name: "squall_queue_depth",
        help: "What waits where.",
        samples: |m| {
            let queues = &m.queues;
            [
                ("fetches_waiting", queues.fetches_waiting),
                ("fetching", queues.fetching),
                ("jobs", queues.jobs),
                ("ready", queues.ready),
            ]
            .map(|(queue, depth)| (vec![("queue", queue)], depth as f64))
            .to_vec()
        },
    },
    Family {
        name: "squall_loading_cpu_seconds_total",
        help: "Processor time of the threads that load.",
        samples: |m| m.cpu.loading.map(time).unwrap_or_default(),
    },
    Family {
        name: "squall_cores",
        help: "Cores that the process may use.",
        samples: |m| one(m.cpu.cores),
    },
    Family {
        name: "squall_limiting_stage",
        help: "1 for the stage that limits, since the reader began.",
        samples: |m| {
            let limiting = m.limiting_stage();
            let sample = |stage: Stage| {
                let limits = limiting == Some(stage);
                (vec![("stage", stage.name())], f64::from(u8::from(limits)))
            };
            STAGES.map(sample).to_vec()
        },
    },
];

/// Several readers in one text, told apart by a label `reader` where they have a name.
pub(crate) fn to_prometheus(readers: &[(Option<&str>, Metrics)]) -> String {
    let labels = readers.iter().map(|(name, metrics)| labels(*name, metrics));
    let labels: Vec<_> = labels.collect();
    let mut text = String::new();
    for family in &FAMILIES {
        let kind = if family.name.ends_with("_total") {
            "counter"
        } else {
            "gauge"
        };
        let mut begun = false;
        for ((_, metrics), labels) in readers.iter().zip(&labels) {
            for (own, value) in (family.samples)(metrics) {
                if !begun {
                    // Writing to a String does not fail.
                    let _ = writeln!(text, "# HELP {0} {1}\n# TYPE {0} {kind}", family.name, family.help);
                    begun = true;
                }
                let own: String = own.iter().map(|(name, value)| format!(",{name}=\"{value}\"")).collect();
                let _ = writeln!(text, "{}{{{labels}{own}}} {value}", family.name);
            }
        }
    }
    text
}

fn labels(name: Option<&str>, metrics: &Metrics) -> String {
    let reader = name.map_or(String::new(), |name| format!("reader=\"{}\",", escaped(name)));
    format!(
        "{reader}dataset=\"{}\",rank=\"{}\"",
        escaped(&metrics.dataset),
        metrics.rank
    )
}

/// The text as the value of a label.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn one(value: u64) -> Vec<Sample> {
    vec![(Vec::new(), value as f64)]
}

fn time(time: Duration) -> Vec<Sample> {
    vec![(Vec::new(), time.as_secs_f64())]
}

fn stage((name, times): (&'static str, StageTimes)) -> Vec<Sample> {
    [
        ("busy", times.busy),
        ("starved", times.starved),
        ("blocked", times.blocked),
    ]
    .map(|(state, time)| (vec![("stage", name), ("state", state)], time.as_secs_f64()))
    .to_vec()
}

fn labelled<const N: usize>(label: &'static str, times: [(&'static str, Duration); N]) -> Vec<Sample> {
    times
        .map(|(value, time)| (vec![(label, value)], time.as_secs_f64()))
        .to_vec()
}
