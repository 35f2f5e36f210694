//! A real Spark Connect server on this machine, one for all tests.

use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// What the server asks of its clients.
pub(super) const TOKEN: &str = "a-token-of-the-tests";
const STARTS_WITHIN: Duration = Duration::from_secs(90);

pub(super) struct Server {
    pub(super) port: u16,
    /// Its directory, and its life: the shell that started it kills it when this end of the pipe is gone, however this process
    /// ends.
    _directory: tempfile::TempDir,
    _shell: Child,
}

/// The server of pyspark 4.
pub(super) fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| {
        let python = std::env::var_os("SQUALL_PYSPARK_PYTHON")
            .expect("SQUALL_PYSPARK_PYTHON is set: run the tests with `cargo xtask test`");
        Server::start(&spark_home(Path::new(&python)), None)
    })
}

/// Where a Python has its Spark.
pub(super) fn spark_home(python: &Path) -> PathBuf {
    let script = "import os, pyspark; print(os.path.dirname(pyspark.__file__))";
    let output = Command::new(python)
        .args(["-c", script])
        .output()
        .expect("Python starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("a path").trim().into()
}

impl Server {
    /// Starts the server of the Spark at `home`, with a jar of Spark Connect where it has none of its own.
    pub(super) fn start(home: &Path, jar: Option<&Path>) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let port = TcpListener::bind(("127.0.0.1", 0)).and_then(|free| free.local_addr());
        let port = port.expect("a free port").port();
        let configuration = [
            format!("spark.connect.grpc.binding.port={port}"),
            "spark.connect.grpc.binding.address=127.0.0.1".into(),
            "spark.driver.bindAddress=127.0.0.1".into(),
            "spark.driver.host=127.0.0.1".into(),
            format!("spark.connect.authenticate.token={TOKEN}"),
            "spark.ui.enabled=false".into(),
            "spark.sql.shuffle.partitions=4".into(),
            // Nobody reads the log but after a failure.
            "spark.log.level=WARN".into(),
        ];
        let mut arguments = vec![
            "--class".into(),
            "org.apache.spark.sql.connect.service.SparkConnectServer".into(),
        ];
        arguments.extend(configuration.into_iter().flat_map(|pair| ["--conf".into(), pair]));
        arguments.extend(["--master", "local[2]", "--driver-memory", "1g"].map(String::from));
        arguments.extend(
            jar.into_iter()
                .flat_map(|jar| ["--jars".into(), jar.display().to_string()]),
        );
        arguments.push("spark-internal".into());
        let log = std::fs::File::create(directory.path().join("log")).expect("a log");
        let mut shell = Command::new("sh")
            .args(["-c", r#""$0" "$@" & read _; kill -9 $!"#])
            .arg(home.join("bin/spark-submit"))
            .args(&arguments)
            .env("SPARK_HOME", home)
            .env_remove("SPARK_CONNECT_AUTHENTICATE_TOKEN")
            .current_dir(directory.path())
            .stdin(Stdio::piped())
            .stdout(log.try_clone().expect("a log"))
            .stderr(log)
            .spawn()
            .expect("a shell");
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            let is_gone = shell.try_wait().expect("a shell").is_some();
            if is_gone || began.elapsed() > STARTS_WITHIN {
                let log = std::fs::read_to_string(directory.path().join("log")).unwrap_or_default();
                panic!("the Spark Connect server did not start:\n{log}");
            }
            // A process that starts says by its port alone that it is there.
            std::thread::sleep(Duration::from_millis(50));
        }
        Self {
            port,
            _directory: directory,
            _shell: shell,
        }
    }

    /// What clients connect to.
    pub(super) fn url(&self) -> String {
        format!("sc://127.0.0.1:{}/;token={TOKEN}", self.port)
    }
}
