//! Sessions of Ballista's client, whose scheduler and executors are processes of their own.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use ballista_core::extension::{SessionConfigExt, SessionStateExt};
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::context::{SessionConfig, SessionContext};
use datafusion::prelude::{CsvReadOptions, ParquetReadOptions};
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use squall_converter::{
    Cluster, Converted, Converter, ExecutorOptions, SaveMode, SchedulerOptions, run_executor, run_scheduler,
    session as session_here,
};
use squall_dataset::{DatasetUrl, Store, StoreOptions};
use squall_schema::ErrorKind;
use squall_testkit::{ACCESS_KEY, Layout, S3Server, SECRET_KEY, Table};
use tempfile::TempDir;

use super::{Destination, run};

/// What a process says when it is ready, before its address.
const READY: &str = "ready at ";
/// What a process is told by its environment: the scheduler that an executor asks, or nothing for a scheduler.
const ROLE: &str = "CLUSTER_ROLE";

/// Runs as a process of its own: a scheduler or an executor.
#[test]
fn process() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let ready = |address: &str| println!("\n{READY}{address}");
    run(async {
        match &role[..] {
            "" => {
                let options = SchedulerOptions::new(([127, 0, 0, 1], 0).into());
                run_scheduler(options, |address| ready(&address.to_string())).await
            }
            scheduler => run_executor(ExecutorOptions::new(scheduler), ready).await,
        }
    })
    .expect("it runs until it is killed");
}

/// A scheduler and two executors, which are killed when this is dropped.
struct Processes {
    scheduler: String,
    all: Vec<Child>,
}

impl Processes {
    fn start(environment: &[(&str, &str)]) -> Self {
        let mut own = Self {
            scheduler: String::new(),
            all: Vec::new(),
        };
        own.scheduler = own.add("", environment);
        for _ in 0..2 {
            own.add(&own.scheduler.clone(), environment);
        }
        own
    }

    fn add(&mut self, role: &str, environment: &[(&str, &str)]) -> String {
        let mut command = Command::new(std::env::current_exe().expect("this program"));
        command.args(["--exact", "ballista::process", "--nocapture"]);
        command.env(ROLE, role).envs(environment.iter().cloned());
        let mut child = command.stdout(Stdio::piped()).spawn().expect("a process");
        let lines = BufReader::new(child.stdout.take().expect("an output")).lines();
        self.all.push(child);
        let mut found = lines.filter_map(|line| line.expect("text").strip_prefix(READY).map(str::to_owned));
        found.next().expect("it is ready")
    }

    /// A session as `SessionContext::remote_with_state("df://host:port", state)` of Ballista's client makes it.
    fn session(&self) -> SessionContext {
        let config = SessionConfig::new_with_ballista().with_target_partitions(4);
        let state = SessionStateBuilder::new()
            .with_default_features()
            .with_config(config)
            .build();
        let state = state.upgrade_for_ballista(format!("http://{}", self.scheduler));
        SessionContext::new_with_state(state.expect("a state"))
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        for process in self.all.iter_mut().rev() {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

/// Executors wrote it, and nobody else.
fn check(converted: &Converted, rows: u64) {
    assert_eq!(converted.rows(), rows);
    assert!(!converted.writers().is_empty() && converted.writers().len() == converted.files().len());
    let own = std::process::id();
    assert!(converted.writers().iter().all(|writer| writer.process != own));
}

#[test]
fn rows_of_a_session_of_ballista_are_converted_by_its_cluster() {
    let table = Table::write(&Layout {
        files: vec![40; 8],
        ..Layout::default()
    });
    let n = table.n_rows() as u64;
    let text = TempDir::new().expect("a directory");
    std::fs::write(text.path().join("names.csv"), "id,other\n1,one\n2,two\n").expect("a file");
    let destination = Destination::new();
    let processes = Processes::start(&[]);
    run(async {
        let session = processes.session();
        let source = table.url();
        session
            .register_parquet("source", &source, ParquetReadOptions::default())
            .await
            .expect("a table");
        let names = text.path().join("names.csv").display().to_string();
        session
            .register_csv("names", &names, CsvReadOptions::new())
            .await
            .expect("a table");
        // It is a session of Ballista's client: queries run on the cluster.
        let rows = session.sql("SELECT count(*) FROM source").await.expect("a query");
        assert_eq!(rows.count().await.expect("rows"), 1);

        let all = session.table("source").await.expect("rows");
        check(
            &Converter::new(destination.url())
                .convert(all)
                .await
                .expect("a conversion"),
            n,
        );
        // A converter's own cluster is not asked for; SQL, an order, and the next version.
        let converter = Converter::new(destination.url()).mode(SaveMode::Overwrite).shuffle(7);
        let sql = "SELECT id, other FROM source LEFT JOIN names USING (id)";
        check(&converter.convert_sql(&session, sql).await.expect("a conversion"), n);
        let csv = session.table("names").await.expect("rows");
        let converter = Converter::new(format!("{}-csv", destination.url()));
        check(&converter.convert(csv).await.expect("a conversion"), 2);
        // A cache knows its plan, and the files behind its tables.
        let cache = Converter::new(format!("{}-cache", destination.url())).cached();
        let all = session.table("source").await.expect("rows");
        check(&cache.clone().convert(all.clone()).await.expect("a conversion"), n);
        assert!(cache.convert(all).await.expect("a hit").is_hit());

        // The cluster of a session for rows of another, or for other limits.
        let cluster = Cluster::of(&session).await.expect("a cluster");
        let here = session_here()
            .sql("SELECT value AS id FROM generate_series(1, 10)")
            .await
            .expect("a query");
        let converter = Converter::new(format!("{}-here", destination.url())).cluster(cluster);
        check(&converter.convert(here).await.expect("a conversion"), 10);
        let error = Cluster::of(&session_here()).await.expect_err("it plans by itself");
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
        assert!(error.to_string().contains("Cluster::new"), "{error}");
    });
}

#[test]
fn tables_in_a_store_are_read_by_executors() {
    let root = TempDir::new().expect("a directory");
    std::fs::create_dir(root.path().join("bucket")).expect("a bucket");
    let server = S3Server::start(root.path());
    let processes = Processes::start(&[("AWS_ACCESS_KEY_ID", ACCESS_KEY), ("AWS_SECRET_ACCESS_KEY", SECRET_KEY)]);
    let destination = Destination::new();
    run(async {
        let source = "s3://bucket/source/";
        let rows = session_here()
            .sql("SELECT value AS id FROM generate_series(1, 100)")
            .await
            .expect("a query");
        let converter = Converter::new(source).storage_options(server.options()).file_bytes(200);
        converter.convert(rows).await.expect("a conversion");
        // The session has its store from its user, the executors have theirs by the conversion's options and their credentials.
        let session = processes.session();
        let bucket = DatasetUrl::parse("s3://bucket").expect("a URL");
        let options = StoreOptions::default().with_options(server.options());
        let store = Store::create_with(&bucket, &options).expect("a store");
        let url = url::Url::parse("s3://bucket").expect("a URL");
        session.register_object_store(&url, store.objects().clone());
        session
            .register_parquet("source", source, ParquetReadOptions::default())
            .await
            .expect("a table");
        let rows = session
            .sql("SELECT id FROM source WHERE id > 50")
            .await
            .expect("a query");
        let converter = Converter::new(destination.url()).storage_options(server.options());
        check(&converter.convert(rows).await.expect("a conversion"), 50);

        // A store that only this process has.
        let url = url::Url::parse("own://x").expect("a URL");
        let memory = Arc::new(InMemory::new());
        memory
            .put(&Path::from("a.csv"), "id\n1\n".into())
            .await
            .expect("a file");
        session.register_object_store(&url, memory);
        session
            .register_csv("own", "own://x/a.csv", CsvReadOptions::new())
            .await
            .expect("a table");
        let rows = session.table("own").await.expect("rows");
        let error = Converter::new(format!("{}-own", destination.url())).convert(rows).await;
        let error = error.expect_err("nobody else sees it");
        assert!(error.to_string().contains("no other process sees"), "{error}");
    });
}
