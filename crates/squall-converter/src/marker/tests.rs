use std::time::Duration;

use object_store::path::Path;
use squall_dataset::DatasetUrl;

use super::*;

const LEASE: Lease = Lease {
    beat: Duration::from_millis(40),
    silence: Duration::from_millis(400),
};

fn place(name: &str) -> Store {
    let url = DatasetUrl::parse(&format!("memory://marker/{name}")).expect("a URL");
    Store::create(&url).expect("a store")
}

async fn content(store: &Store) -> Option<Vec<u8>> {
    let found = store.get(&Path::from(WRITING_MARKER)).await.expect("a look");
    found.map(|bytes| bytes.to_vec())
}

#[tokio::test]
async fn an_owner_who_lives_keeps_others_away() {
    let store = place("alive");
    let marker = Marker::take(&store, LEASE).await.expect("the first");
    let first = content(&store).await;
    let error = Marker::take(&store, LEASE).await.expect_err("the second");
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");
    assert_ne!(content(&store).await, first, "no beat");
    assert!(!marker.is_inherited && marker.check().is_ok());
    marker.release().await.expect("taken away");
    assert_eq!(content(&store).await, None);
    let again = Marker::take(&store, LEASE).await.expect("the place is free");
    assert!(!again.is_inherited);
}

#[tokio::test]
async fn of_many_who_find_a_dead_owner_one_takes_over() {
    let store = place("dead");
    put(&store, PutMode::Create)
        .await
        .expect("a marker that nobody puts anew");
    let began = Instant::now();
    let takers = (0..8).map(|_| Marker::take(&store, LEASE));
    let taken = futures::future::join_all(takers).await;
    assert!(began.elapsed() >= LEASE.silence);
    let (mine, others): (Vec<_>, Vec<_>) = taken.into_iter().partition(Result::is_ok);
    assert_eq!(mine.len(), 1);
    assert!(mine.into_iter().flatten().all(|marker| marker.is_inherited));
    for other in others {
        assert_eq!(other.expect_err("one wins").kind(), ErrorKind::AlreadyExists);
    }
}

#[tokio::test]
async fn an_owner_learns_that_it_was_taken_for_dead() {
    let store = place("lost");
    let marker = Marker::take(&store, LEASE).await.expect("the first");
    put(&store, PutMode::Overwrite).await.expect("as one who takes over");
    let began = Instant::now();
    while marker.check().is_ok() {
        assert!(began.elapsed() < Duration::from_secs(20), "nobody told it");
        sleep(LEASE.beat).await;
    }
    let others = content(&store).await;
    marker.release().await.expect_err("it is no longer ours");
    assert_eq!(content(&store).await, others);
}
