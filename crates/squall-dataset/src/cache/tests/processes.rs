//! Several processes with one cache, some of them killed.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use super::*;

const DIRECTORY: &str = "SQUALL_TEST_CACHE";
const ROLE: &str = "SQUALL_TEST_ROLE";

const OBJECT: u64 = 10 << 20;
const LIMIT: u64 = 4 << 20;
const RANGE: u64 = 150_000;

/// The arguments with which this test binary runs [`child`] alone.
const CHILD: [&str; 3] = ["--exact", "cache::tests::processes::child", "--nocapture"];

fn command(program: &Path, directory: &Path, role: &str) -> Command {
    let mut command = Command::new(program);
    command.env(DIRECTORY, directory).env(ROLE, role).stdout(Stdio::piped());
    command
}

/// This test binary once more.
fn spawn(directory: &Path, role: &str) -> Child {
    let program = std::env::current_exe().expect("the test binary");
    command(&program, directory, role)
        .args(CHILD)
        .spawn()
        .expect("a process")
}

/// What a process prints.
fn output(child: Child) -> String {
    let output = child.wait_with_output().expect("an output");
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}");
    text.into_owned()
}

/// What stands behind `name=` in an output.
fn number(text: &str, name: &str) -> u64 {
    let found = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    found.expect("a number").parse().expect("a number")
}

fn printed(child: Child, name: &str) -> u64 {
    number(&output(child), name)
}

/// Does nothing but where another test starts it as a process.
#[test]
fn child() {
    let (Some(directory), Ok(role)) = (std::env::var_os(DIRECTORY), std::env::var(ROLE)) else {
        return;
    };
    if role == "denied" {
        let error = RangeCache::open(&CacheOptions::new(directory, LIMIT)).expect_err("an error");
        println!("\nerror={}", u64::from(error.to_string().contains("ermission denied")));
        return;
    }
    let setting = Setting {
        cache: open(Path::new(&directory), LIMIT),
        directory: tempfile::tempdir().expect("a directory"),
        asked: AtomicUsize::new(0),
        asked_bytes: AtomicU64::new(0),
    };
    let mut random = 0x1234_5678_9abc_def1u64 ^ u64::from(std::process::id());
    let runtime = runtime();
    match role.as_str() {
        "all" => {
            for start in (0..LIMIT / 2).step_by(RANGE as usize) {
                runtime.block_on(setting.get_part(&key(1, OBJECT), 1, None, &[start..start + RANGE]));
            }
            println!("\nfetched={}", setting.asked_bytes.load(Ordering::Relaxed));
        }
        "random" | "endless" => {
            let mut n = 0;
            while n < 60 || role == "endless" {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                let (object, start) = (random % 2, (random >> 8) % (OBJECT - RANGE));
                runtime.block_on(setting.get_part(&key(object, OBJECT), object, None, &[start..start + RANGE]));
                n += 1;
                if n == 5 {
                    println!("\nready");
                }
            }
            println!("\nfailures={}", setting.cache.metrics().failures);
        }
        "holder" => runtime.block_on(async {
            // Fetches for ever, with the claim held.
            let got = setting.cache.get_ranges(&KEY, None, &[0..100], |_| {
                println!("\nready");
                std::future::pending()
            });
            let _ = got.await;
        }),
        "full" => {
            // Each of these is read right, kept or not.
            for start in (0..LIMIT).step_by(RANGE as usize) {
                setting.get(1, &[start..start + RANGE]);
            }
            let full = setting.cache.metrics();
            // From now on old entries go for new ones: nothing fails any more.
            for start in (0..LIMIT).step_by(RANGE as usize) {
                setting.get(2, &[start..start + RANGE]);
            }
            let after = setting.cache.metrics();
            let last = LIMIT / RANGE * RANGE;
            assert_eq!(setting.get(2, &[last..last + 100]), []);
            println!("\nfailures={}\nlater={}", full.failures, after.failures - full.failures);
            println!("evictions={}\ndisk={}", after.evictions, on_disk(&setting.entries()));
        }
        other => panic!("no role {other}"),
    }
}

/// Waits until a process says that it is ready.
fn wait_until_ready(child: &mut Child) {
    let mut lines = BufReader::new(child.stdout.as_mut().expect("a pipe")).lines();
    assert!(lines.any(|line| line.expect("a line") == "ready"));
}

/// Ranks that want the same at the same time fetch it about once, together.
#[test]
fn processes_share_what_they_fetch() {
    let directory = tempfile::tempdir().expect("a directory");
    let children: Vec<_> = (0..4).map(|_| spawn(directory.path(), "all")).collect();
    let fetched: u64 = children.into_iter().map(|child| printed(child, "fetched")).sum();
    let all = (LIMIT / 2).next_multiple_of(RANGE);
    assert_eq!(fetched, all);
}

/// The limit holds whoever writes, and no process sees anything but the bytes of the store.
#[test]
fn processes_keep_one_limit() {
    let directory = tempfile::tempdir().expect("a directory");
    let cache = open(directory.path(), LIMIT);
    let mut children: Vec<_> = (0..3).map(|_| spawn(directory.path(), "random")).collect();
    let mut most = 0;
    while children
        .iter_mut()
        .any(|child| child.try_wait().expect("a status").is_none())
    {
        let files = [files(&cache.layout.objects()), files(&cache.layout.tmp())].concat();
        // A file that is renamed between the two looks is seen twice: look at each inode once.
        let mut seen = HashMap::new();
        for file in files {
            if let Ok(file) = fs::metadata(file) {
                seen.insert(std::os::unix::fs::MetadataExt::ino(&file), file.len());
            }
        }
        most = most.max(seen.values().sum::<u64>());
        std::thread::yield_now();
    }
    for child in children {
        assert_eq!(printed(child, "failures"), 0);
    }
    assert!(most > LIMIT / 2, "{most} bytes");
    let last = on_disk(&files(&cache.layout.objects()));
    assert!(last <= LIMIT, "{last} bytes");
    // Files come and go while they are counted: one entry of each process may be seen before and behind.
    assert!(most <= LIMIT + 6 * RANGE, "{most} bytes");
}

#[test]
fn a_killed_process_leaves_a_cache_that_works() {
    let directory = tempfile::tempdir().expect("a directory");
    for round in 0..4 {
        let mut children: Vec<_> = (0..2).map(|_| spawn(directory.path(), "endless")).collect();
        for child in &mut children {
            wait_until_ready(child);
            child.kill().expect("killed");
            child.wait().expect("ended");
        }
        // What the dead have left is no damage, and is gone with the next opening.
        let cache = open(directory.path(), LIMIT);
        assert_eq!(files(&cache.layout.tmp()), [] as [PathBuf; 0], "round {round}");
        assert_eq!(files(&cache.layout.claims()), [] as [PathBuf; 0], "round {round}");
        assert!(on_disk(&files(&cache.layout.objects())) <= LIMIT);
        let setting = Setting {
            cache,
            directory: tempfile::tempdir().expect("a directory"),
            asked: AtomicUsize::new(0),
            asked_bytes: AtomicU64::new(0),
        };
        for object in 0..2 {
            runtime().block_on(setting.get_part(&key(object, OBJECT), object, None, &[0..OBJECT]));
        }
        let metrics = setting.cache.metrics();
        assert_eq!((metrics.damaged, metrics.failures), (0, 0), "round {round}");
        assert!(metrics.hit_bytes > 0);
    }
}

/// A draft of a process that was killed in the middle of writing.
#[test]
fn what_a_killed_writer_left_is_swept() {
    let mut setting = Setting::new(1 << 26);
    let room = &setting.cache.room;
    let (draft, _) = room
        .draft(100_000, foresight::Worth::Done, &*setting.cache.knowledge)
        .expect("a draft");
    let draft = draft.expect("room");
    assert_eq!(files(&setting.cache.layout.tmp()).len(), 1);
    let other = open(setting.directory.path(), 1 << 27);
    assert_eq!(files(&other.layout.tmp()).len(), 1, "its writer lives");
    // The lock ends, and the file stays.
    draft.file.unlock().expect("unlocked");
    std::mem::forget(draft);
    setting.reopened();
    assert_eq!(files(&setting.cache.layout.tmp()).len(), 0);
}

#[test]
fn the_claim_of_a_killed_process_ends_with_it() {
    let setting = Setting::new(LIMIT);
    let mut holder = spawn(setting.directory.path(), "holder");
    wait_until_ready(&mut holder);
    runtime().block_on(async {
        let kill = async {
            until_waiting(&setting).await;
            holder.kill().expect("killed");
            holder.wait().expect("ended");
        };
        let asked = [0..100];
        let (asked_for, ()) = futures::future::join(setting.get_part(&KEY, 1, None, &asked), kill).await;
        assert_eq!(asked_for, asked);
    });
    assert_eq!(setting.cache.metrics().waits, 1);
}

/// A file system of 2 MiB, in a namespace of its own.
#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_costs_no_data() {
    let directory = tempfile::tempdir().expect("a directory");
    let program = std::env::current_exe().expect("the test binary");
    let namespace = |script: &str| {
        let mut unshare = command(Path::new("unshare"), directory.path(), "full");
        unshare
            .args(["--map-root-user", "--mount", "sh", "-c", script])
            .arg(&program)
            .args(CHILD);
        unshare
    };
    let mount = format!("mount -t tmpfs -o size=2m none \"${DIRECTORY}\"");
    let allowed = namespace(&mount)
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !allowed {
        eprintln!("NOT TESTED: a full disk, for this machine allows no mount in a namespace");
        return;
    }
    let text = output(
        namespace(&format!("{mount} && exec \"$0\" \"$@\""))
            .spawn()
            .expect("a process"),
    );
    assert!(number(&text, "failures") > 0, "{text}");
    assert_eq!(number(&text, "later"), 0, "{text}");
    assert!(number(&text, "evictions") > 0, "{text}");
    assert!((1 << 20..=2 << 20).contains(&number(&text, "disk")), "{text}");
}

/// The directory of another user.
#[cfg(unix)]
#[test]
fn a_directory_of_another_user_is_an_error() {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::os::unix::process::CommandExt;

    let directory = tempfile::tempdir().expect("a directory");
    let is_root = fs::metadata(directory.path()).expect("a directory").uid() == 0;
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o500)).expect("permissions");
    let program = std::env::current_exe().expect("the test binary");
    let mut command = command(&program, &directory.path().join("cache"), "denied");
    // Nothing is denied to root.
    let command = if is_root { command.uid(65_534) } else { &mut command };
    match command.args(CHILD).spawn() {
        Ok(child) => assert_eq!(printed(child, "error"), 1),
        Err(error) => eprintln!("NOT TESTED: a directory of another user, who may not run the test binary: {error}"),
    }
}
