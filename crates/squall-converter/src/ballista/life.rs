//! Signs of life of a task, given beside it.
//!
//! They are given by threads of their own: those of the tasks may compute for long without a pause, and are all taken then.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use squall_schema::Error;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};

use crate::progress::Meter;

use super::lease::Watch;
use super::record::{Beat, Ledger};

/// How often an attempt says that it lives.
const BEAT: Duration = Duration::from_secs(1);
/// How long the last one may take.
const LAST: Duration = Duration::from_secs(5);

/// What lives.
pub(crate) struct Life {
    beats: JoinHandle<()>,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    is_unwanted: AtomicBool,
    why: Mutex<Option<Error>>,
    told: Notify,
    ended: Notify,
}

impl Life {
    /// Gives signs of life on the threads behind `threads`, and looks whether the driver wants the work. A driver that does not, and
    /// waits, is given them until the end.
    pub(crate) fn begin(
        threads: &Handle,
        (ledger, watch): (Ledger, Watch),
        (unit, token): (usize, String),
        meter: Meter,
    ) -> Self {
        let state = Arc::new(State::default());
        let own = state.clone();
        let beats = threads.spawn(async move {
            let (mut watch, mut ticks) = (watch, interval(BEAT));
            for n in 1.. {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = own.ended.notified() => break,
                }
                if let Err(unwanted) = watch.look(&ledger.store).await {
                    if !own.is_unwanted.swap(true, Ordering::Relaxed) {
                        *own.why.lock().unwrap_or_else(PoisonError::into_inner) = Some(unwanted.error);
                        own.told.notify_one();
                    }
                    // Its place may be gone by now: nothing is written there any more.
                    if !unwanted.is_awaited {
                        ledger.end(unit, &token).await;
                        break;
                    }
                }
                let (token, counted) = (token.clone(), meter.counted());
                ledger
                    .beat(&Beat {
                        unit,
                        token,
                        n,
                        counted,
                    })
                    .await;
            }
        });
        Self { beats, state }
    }

    /// Whether nobody wants the work any more.
    pub(crate) fn is_unwanted(&self) -> impl Fn() -> bool + Send + Sync + use<> {
        let state = self.state.clone();
        move || state.is_unwanted.load(Ordering::Relaxed)
    }

    /// Waits until nobody wants the work any more.
    pub(crate) async fn unwanted(&self) {
        self.state.told.notified().await;
    }

    /// Ends the signs; gives why nobody wanted the work, if so.
    pub(crate) async fn end(mut self, ledger: &Ledger, (unit, token): (usize, &str)) -> Option<Error> {
        // A sign that is on its way when its task is aborted may come after it was taken away.
        self.state.ended.notify_one();
        if timeout(LAST, &mut self.beats).await.is_err() {
            self.beats.abort();
        }
        ledger.end(unit, token).await;
        self.state.why.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Drop for Life {
    fn drop(&mut self) {
        self.beats.abort();
    }
}
