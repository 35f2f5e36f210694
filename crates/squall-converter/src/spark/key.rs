//! What a conversion on Spark is known by: the plan as Spark understood it, and the files that it reads.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;
use std::thread;

use regex::Regex;
use spark_connect::{DataFrame, SparkSession};
use squall_dataset::{DatasetUrl, Store, StoreOptions, storage_error};
use squall_schema::{Error, ErrorKind, Result};

use super::columns::quoted;
use super::error::spark_error;
use super::plan::{Plan, Unlisted};
use super::session::{Settings, blocking};
use crate::key::Key;
use crate::scratch::nonce;

/// Numbers that each analysis of a plan deals out anew: of columns and subqueries, and of what `WITH` defines.
static NUMBERS: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"#\d+|(?:CTERelationDef|CTERelationRef) \d+").expect("a pattern"));
/// Functions that give something else each time, or each day.
static CHANGING: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\b(current_timestamp|current_date|current_time|localtimestamp|now|uuid|shuffle|input_file_name)\(")
        .expect("a pattern")
});
/// What decides, beside the plan, what rows are.
const DECISIVE: [&str; 3] = [
    "spark.sql.ansi.enabled",
    "spark.sql.session.timeZone",
    "spark.sql.caseSensitive",
];

/// What Spark says of a plan.
struct Facts {
    plan: String,
    files: Vec<String>,
}

/// Adds the plan and what it reads to a key. `told` is a text that says which rows they are together with the plan's text: SQL, and what its
/// tables are. Without it, Spark's hash of the plan is taken. An error if the plan gives other rows each time, or reads what
/// nobody can tell from its next version.
pub(super) async fn add(key: Key, rows: &DataFrame, told: Option<String>, store: &StoreOptions) -> Result<Key> {
    let rows = rows.clone();
    let facts = blocking(move || ask(&rows, told)).await?;
    let mut key = key.text("spark").text(&facts.plan);
    for identity in identities(&facts.files, store).await? {
        key = key.text(&identity);
    }
    Ok(key)
}

fn ask(rows: &DataFrame, told: Option<String>) -> Result<Facts> {
    let session = rows.spark_session();
    let mut plan = session.version().map_err(spark_error)?;
    // Only what was set: what the others are is a matter of the version.
    let set = session.conf().get_all().map_err(spark_error)?;
    for name in DECISIVE {
        plan.push_str(&format!("\n{name} {:?}", set.get(name)));
    }
    plan.push('\n');
    // By itself Spark shows the first 25 columns only.
    let settings = Settings::change(&session, &[("spark.sql.debug.maxToStringFields", i32::MAX.to_string())])?;
    let analyse = || {
        let view = View::of(rows)?;
        let plan = view.analysed()?;
        Ok::<_, Error>((view, plan))
    };
    let (one, other) = thread::scope(|scope| {
        let other = scope.spawn(analyse);
        (analyse(), other.join())
    });
    drop(settings);
    let other = other.map_err(|_| Error::internal("a thread that waits for Spark panicked"))?;
    let ((one, text), (_, again)) = (one?, other?);
    let Some(same) = renumbered(&text, &again) else {
        return Err(changing("rand() or another function without a seed"));
    };
    let rows = one.rows()?;
    plan.push_str(&rows.schema().map_err(spark_error)?.json());
    plan.push('\n');
    if let Some(found) = CHANGING.captures(&same) {
        return Err(changing(&format!("{}()", &found[1])));
    }
    let nodes = Plan::parse(&same);
    if let Some(leaf) = nodes.unknown() {
        let kind = leaf.split([' ', '(']).next().unwrap_or_default();
        return Err(Error::unsupported(format!(
            "the query reads a source of Spark of which a cache cannot tell whether it changed, a {kind}: name the conversion by cache_key, and by another name when the source changed"
        )));
    }
    plan.push_str(&same);
    // The text does not quote what is text in a query, and of rows in the plan it shows the columns only. The hash does not tell plans
    // that read files from each other beyond the life of a server, so what is told goes before it.
    match told {
        Some(told) => plan.push_str(&told),
        None => plan.push_str(&rows.semantic_hash().map_err(spark_error)?.to_string()),
    }
    let mut files = rows.input_files().map_err(spark_error)?;
    let views = nodes.views_apart().map_err(|Unlisted| {
        Error::unsupported(
            "a subquery reads files of which Spark does not say which they are, so no cache can tell whether they changed: \
             make a temporary view of them that the subquery reads, or name the conversion by cache_key",
        )
    })?;
    for view in views {
        let of_view = session.sql(&format!("SELECT * FROM {view}")).map_err(spark_error)?;
        files.extend(of_view.input_files().map_err(spark_error)?);
    }
    files.sort();
    files.dedup();
    Ok(Facts { plan, files })
}

/// The text of a plan with its columns numbered as they come, from two texts of it. `None` if more than numbers differs. Numbers in values
/// are numbered too: the plan's hash, or its SQL, tells those apart.
fn renumbered(one: &str, other: &str) -> Option<String> {
    let (mut text, mut numbers) = (String::new(), HashMap::new());
    let (mut from, mut from_other) = (0, 0);
    let (mut found, mut found_other) = (NUMBERS.find_iter(one), NUMBERS.find_iter(other));
    loop {
        let (next, next_other) = (found.next(), found_other.next());
        let end = next.map_or(one.len(), |own| own.start());
        let end_other = next_other.map_or(other.len(), |own| own.start());
        if one[from..end] != other[from_other..end_other] {
            return None;
        }
        text.push_str(&one[from..end]);
        let (own, its) = match (next, next_other) {
            (None, None) => return Some(text),
            (Some(own), Some(its)) => (own, its),
            _ => return None,
        };
        // A definition and those who take it have one number.
        let (label, number) = own.as_str().rsplit_once(' ').unwrap_or(("", own.as_str()));
        if its.as_str().rsplit_once(' ').map_or("", |(label, _)| label) != label {
            return None;
        }
        let n = numbers.len();
        let n = numbers.entry(number).or_insert(n);
        if !label.is_empty() {
            text.push_str(label);
            text.push(' ');
        }
        text.push_str(&format!("#{n}"));
        (from, from_other) = (own.end(), its.end());
    }
}

/// A temporary view of rows. It is the only way to have the text of their plan and not to print it; and it keeps the plan, so that what
/// is asked of it needs no other look at the files.
struct View {
    session: SparkSession,
    name: String,
}

impl View {
    fn of(rows: &DataFrame) -> Result<Self> {
        let name = format!("squall_{}", nonce());
        rows.create_or_replace_temp_view(&name).map_err(spark_error)?;
        Ok(Self {
            session: rows.spark_session(),
            name,
        })
    }

    fn rows(&self) -> Result<DataFrame> {
        self.session.table(&self.name).map_err(spark_error)
    }

    /// The plan after Spark resolved its names.
    fn analysed(&self) -> Result<String> {
        // No rows are left to plan for: only the text is wanted.
        let query = format!("EXPLAIN EXTENDED SELECT * FROM {} LIMIT 0", quoted(&self.name));
        let explained = self.session.sql(&query).map_err(spark_error)?;
        let rows = explained.collect().map_err(spark_error)?;
        let text = rows.first().and_then(|row| row.get(0)).and_then(|value| value.as_str());
        let section = |text: &str| {
            let start = text.find("== Analyzed Logical Plan ==")?;
            let end = text.find("== Optimized Logical Plan ==")?;
            Some(text[start..end].replace(&self.name, "view"))
        };
        let section = text.and_then(section);
        section.ok_or_else(|| Error::new(ErrorKind::Engine, "Spark does not explain its plan as expected"))
    }
}

impl Drop for View {
    fn drop(&mut self) {
        // What is left goes with the session.
        let _ = self.session.catalog().drop_temp_view(&self.name);
    }
}

fn changing(what: &str) -> Error {
    Error::invalid(format!(
        "{what} gives something else each time, so no cache can tell whether a conversion was made: leave it out, or name the conversion by cache_key"
    ))
}

/// Paths, sizes, and ETags or times of the files. Directories are listed, which is one request for many files.
async fn identities(files: &[String], options: &StoreOptions) -> Result<Vec<String>> {
    let mut directories: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for file in files {
        let (directory, name) = file.rsplit_once('/').unwrap_or(("", file));
        directories.entry(directory).or_default().push(name);
    }
    let mut identities = Vec::with_capacity(files.len());
    for (directory, names) in directories {
        let unseen = |error: Error| {
            Error::new(
                error.kind(),
                "a file that Spark reads cannot be looked at, so no cache can tell whether it changed: name the conversion by cache_key",
            )
            .at("file", directory)
            .with_source(error)
        };
        let url = DatasetUrl::parse(directory)?;
        let store = Store::open_with(&url, options).await.map_err(unseen)?;
        let listed = store.objects().list_with_delimiter(None).await;
        let listed = listed.map_err(|error| unseen(storage_error(error)))?.objects;
        let own: Vec<_> = names
            .iter()
            .map(|name| DatasetUrl::parse(&format!("{directory}/{name}")))
            .collect::<Result<_>>()?;
        for (file, name) in own.iter().zip(&names) {
            let text = file.to_string();
            let found = listed.iter().find(|object| {
                let name = object.location.filename().unwrap_or_default();
                text.rsplit('/').next() == Some(name)
            });
            let Some(found) = found else {
                return Err(unseen(Error::new(ErrorKind::NotFound, format!("no file {name:?}"))));
            };
            let version = found.e_tag.clone().unwrap_or_else(|| found.last_modified.to_rfc3339());
            identities.push(format!("{text} {} {version}", found.size));
        }
    }
    Ok(identities)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_numbers_of_an_analysis_do_not_count() {
        let text = |a: u32, b: u32| format!("Project [x#{a}L, x#{b} AS t#7]\n+- Join (x#{a}L = x#{b}L)");
        let same = renumbered(&text(10, 11), &text(20, 21)).expect("one plan");
        assert_eq!(same, "Project [x#0L, x#1 AS t#2]\n+- Join (x#0L = x#1L)");
        assert_eq!(renumbered(&text(13, 14), &text(1, 3)).as_ref(), Some(&same));
        // Which column is which does.
        assert_ne!(renumbered(&text(10, 10), &text(20, 20)), Some(same));
        assert_eq!(renumbered("rand(12) AS x#1", "rand(13) AS x#2"), None);
        assert_eq!(renumbered("x#1, y", "x#2, y#3"), None);
        let with = |n: u32| format!("CTERelationDef {n}, false\n+- CTERelationRef {n}, true, [id#{n}L]");
        let same = renumbered(&with(0), &with(4)).expect("one plan");
        assert_eq!(same, "CTERelationDef #0, false\n+- CTERelationRef #0, true, [id#1L]");
    }
}
