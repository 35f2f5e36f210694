//! The examples, run as a user runs them.

use std::path::PathBuf;
use std::process::Command;

/// An example's program, which `cargo test` over the workspace builds beside the tests.
fn example(name: &str) -> Command {
    let tests = std::env::current_exe().expect("the test's own path");
    let program = tests
        .ancestors()
        .nth(2)
        .map(|target| target.join("examples").join(name));
    let program: PathBuf = program.expect("the target folder");
    assert!(
        program.exists(),
        "{} is not built: run the tests with `cargo xtask test`",
        program.display()
    );
    Command::new(program)
}

fn succeed(mut command: Command) -> String {
    let output = command.output().expect("the example starts");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

fn accuracy(printed: &str) -> f64 {
    let line = printed.lines().find_map(|line| line.strip_prefix("test accuracy "));
    let number = line.and_then(|line| line.split(' ').next());
    number
        .and_then(|number| number.parse().ok())
        .unwrap_or_else(|| panic!("no accuracy in {printed}"))
}

#[test]
fn the_quickstart_learns_and_sees_every_row_once() {
    let printed = succeed(example("quickstart"));
    assert!(accuracy(&printed) > 0.90, "{printed}");
    let once = printed
        .lines()
        .filter(|line| line.starts_with("epoch ") && line.ends_with(" 1437 rows seen, each exactly once"));
    assert_eq!(once.count(), 15, "{printed}");
}

#[cfg(feature = "torch")]
mod torch {
    use super::{accuracy, example, succeed};

    /// The losses of the epochs, and the accuracy.
    fn train(arguments: &[&str]) -> (Vec<f64>, f64) {
        let mut command = example("train_digits");
        let launchers = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"];
        for name in launchers {
            command.env_remove(name);
        }
        command.args(arguments).args(["--epochs", "4"]);
        let printed = succeed(command);
        let losses = printed.lines().filter(|line| line.starts_with("epoch "));
        let losses: Vec<f64> = losses
            .filter_map(|line| line.rsplit(' ').next()?.parse().ok())
            .collect();
        assert_eq!(losses.len(), 4, "{printed}");
        (losses, accuracy(&printed))
    }

    #[test]
    fn two_ranks_learn_as_one_does() {
        let (alone, alone_accuracy) = train(&["--world-size", "1", "--device", "cpu"]);
        let (together, together_accuracy) = train(&["--world-size", "2", "--device", "cpu"]);
        assert!(alone[3] < alone[0] / 2.0, "the loss does not fall: {alone:?}");
        assert!(alone_accuracy > 0.90 && together_accuracy > 0.90);
        // Sums are made in another order, and training amplifies the difference.
        for (alone, together) in alone.iter().zip(&together) {
            assert!(
                (alone - together).abs() < 1e-3 * alone,
                "{alone} alone, {together} on two ranks"
            );
        }
        // The comparison can fail: another order gives another curve.
        let (other, _) = train(&["--world-size", "1", "--device", "cpu", "--seed", "8"]);
        assert!(
            alone.iter().zip(&other).any(|(a, b)| (a - b).abs() > 1e-2 * a),
            "{alone:?} {other:?}"
        );
    }

    #[test]
    fn torchrun_starts_the_ranks() {
        let data = tempfile::tempdir().expect("a temporary directory");
        let program = example("train_digits");
        // The torchrun of the Python that libtorch comes from.
        let mut torchrun = std::process::Command::new("torchrun");
        torchrun
            .args(["--standalone", "--nproc-per-node", "2", "--no-python"])
            .arg(program.get_program());
        torchrun
            .args(["--epochs", "1", "--device", "cpu", "--data"])
            .arg(data.path());
        let printed = succeed(torchrun);
        assert!(printed.contains("2 ranks, 1437 rows, 22 steps an epoch"), "{printed}");
        assert!(printed.contains("test accuracy "), "{printed}");
    }

    #[test]
    fn options_that_do_not_fit_are_refused() {
        let refused = |arguments: &[&str], rank: Option<&str>| {
            let mut command = example("train_digits");
            command.args(arguments);
            if let Some(rank) = rank {
                command
                    .env("RANK", rank)
                    .env("WORLD_SIZE", "3")
                    .env("MASTER_ADDR", "127.0.0.1")
                    .env("MASTER_PORT", "1");
            }
            let output = command.output().expect("the example starts");
            assert!(!output.status.success());
            String::from_utf8_lossy(&output.stderr).into_owned()
        };
        assert!(refused(&["--world-size", "3"], None).contains("multiple of the world size 3, found 64"));
        assert!(refused(&[], Some("3")).contains("expected RANK below WORLD_SIZE 3, found 3"));
    }

    #[test]
    fn a_rank_that_cannot_train_ends_the_others() {
        let mut command = example("train_digits");
        command.args(["--world-size", "2", "--device", "cpu", "--data", "/proc/nowhere"]);
        let output = command.output().expect("the example starts");
        assert!(!output.status.success());
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            errors.contains("rank 0 failed") || errors.contains("rank 1 failed"),
            "{errors}"
        );
    }
}
