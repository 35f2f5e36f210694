//! The text of a plan, as Spark prints it after it resolved the names: a line a node, its children below it, further to
//! the right.
//!
//! The plans of subqueries stand between a node and its children, two levels to the right. Spark lists the files that a
//! query reads, but not those of subqueries that it runs on their own, for one value: here it is found by which views
//! they are read, whose files it does list.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

/// Characters of a level.
const LEVEL: usize = 3;
/// Lines before the first node: the title and the columns.
const TITLE: usize = 2;
/// Leaves whose rows the plan itself, or the list of files, tells.
static KNOWN: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^(Range \(|OneRowRelation|LocalRelation|CTERelationRef )").expect("a pattern"));
/// Leaves that read files.
static FILES: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^Relation \[.*\] (parquet|csv|json|orc|text|avro|xml|binaryFile)$").expect("a pattern")
});
/// A view, and its name in SQL.
static VIEW: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^View \(((?:`(?:[^`]|``)*`\.?)+), \[").expect("a pattern"));
/// What a query defines by `WITH`, and where it takes it.
static DEFINED: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^CTERelationDef ([^,]*)").expect("a pattern"));
static TAKEN: LazyLock<Regex> = LazyLock::new(|| Regex::new(r"^CTERelationRef ([^,]*)").expect("a pattern"));

/// The nodes of a plan.
pub(super) struct Plan<'a> {
    nodes: Vec<Node<'a>>,
}

struct Node<'a> {
    text: &'a str,
    parent: Option<usize>,
    is_leaf: bool,
    /// Whether it is the first one of a subquery that Spark may run on its own.
    is_apart: bool,
}

/// Files that a subquery reads by themselves, and not through a view.
#[derive(Debug, PartialEq)]
pub(super) struct Unlisted;

impl<'a> Plan<'a> {
    pub(super) fn parse(text: &'a str) -> Self {
        let lines = text.lines().skip(TITLE).filter(|line| !line.trim().is_empty());
        let node = |line: &'a str| line.trim_start_matches([' ', ':', '+', '-']);
        let lines: Vec<_> = lines
            .map(|line| ((line.len() - node(line).len()) / LEVEL, node(line)))
            .collect();
        let mut nodes: Vec<Node> = Vec::with_capacity(lines.len());
        // The nodes above the next one.
        let mut above: Vec<usize> = Vec::new();
        for (i, (level, text)) in lines.iter().enumerate() {
            while above.last().is_some_and(|last| lines[*last].0 >= *level) {
                above.pop();
            }
            let parent = above.last().copied();
            let is_subquery = parent.is_some_and(|parent| lines[parent].0 + 2 == *level);
            nodes.push(Node {
                text,
                parent,
                is_leaf: lines.get(i + 1).is_none_or(|(next, _)| next <= level),
                is_apart: is_subquery && parent.is_some_and(|parent| !is_joined(lines[parent].1)),
            });
            above.push(i);
        }
        Self { nodes }
    }

    /// A leaf of which neither the plan nor a list of files tells whether its rows changed.
    pub(super) fn unknown(&self) -> Option<&'a str> {
        let leaves = self.nodes.iter().filter(|node| node.is_leaf);
        let mut texts = leaves.map(|node| node.text);
        texts.find(|text| !KNOWN.is_match(text) && !FILES.is_match(text))
    }

    /// The views by which subqueries read files that Spark does not list for the query.
    pub(super) fn views_apart(&self) -> Result<BTreeSet<&'a str>, Unlisted> {
        let mut apart = BTreeSet::new();
        // What is defined by WITH and taken in a subquery is read there. One may take another.
        loop {
            let taken = self.leaves().filter_map(|leaf| {
                let name = TAKEN.captures(self.nodes[leaf].text)?.get(1)?.as_str();
                self.is_apart(leaf, &apart)
                    .is_some_and(|view| view.is_none())
                    .then_some(name)
            });
            let taken: BTreeSet<_> = taken.collect();
            if taken == apart {
                break;
            }
            apart = taken;
        }
        let files = self.leaves().filter(|leaf| FILES.is_match(self.nodes[*leaf].text));
        let views = files.filter_map(|leaf| self.is_apart(leaf, &apart));
        views.map(|view| view.ok_or(Unlisted)).collect()
    }

    fn leaves(&self) -> impl Iterator<Item = usize> {
        (0..self.nodes.len()).filter(|i| self.nodes[*i].is_leaf)
    }

    /// `Some` if a leaf belongs to a subquery that runs on its own, or to one of these definitions that such a subquery
    /// takes: with the innermost view between the two, if there is one.
    fn is_apart(&self, leaf: usize, defined: &BTreeSet<&str>) -> Option<Option<&'a str>> {
        let mut view = None;
        let mut next = Some(leaf);
        while let Some(node) = next.map(|i| &self.nodes[i]) {
            let own = VIEW.captures(node.text).and_then(|found| found.get(1));
            view = view.or(own.map(|own| own.as_str()));
            let name = DEFINED.captures(node.text).and_then(|found| found.get(1));
            if node.is_apart || name.is_some_and(|name| defined.contains(name.as_str())) {
                return Some(view);
            }
            next = node.parent;
        }
        None
    }
}

/// Whether Spark makes joins of all subqueries of a node: their files are listed then.
fn is_joined(text: &str) -> bool {
    (text.starts_with("Filter ") || text.starts_with("LateralJoin "))
        && !text.contains("scalar-subquery#")
        && !text.contains("exists#")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lines: &[&str]) -> String {
        format!("== Analyzed Logical Plan ==\nid: bigint\n{}\n\n", lines.join("\n"))
    }

    #[track_caller]
    fn check(lines: &[&str], expected: Result<&[&str], Unlisted>) {
        let text = of(lines);
        let found = Plan::parse(&text).views_apart();
        assert_eq!(found, expected.map(|names| names.iter().copied().collect()));
    }

    #[test]
    fn a_source_that_tells_no_files_is_found() {
        let unknown = |lines: &[&str]| Plan::parse(&of(lines)).unknown().map(str::len);
        let known = [
            "Project [id#0]",
            "+- Join Inner",
            "   :- SubqueryAlias a",
            "   :  +- Relation [id#0,x#1] parquet",
            "   +- Range (0, 10, step=1, splits=Some(2))",
        ];
        assert_eq!(unknown(&known), None);
        assert!(unknown(&["Project [id#0]", "+- Relation [id#0] JDBCRelation(t)"]).is_some());
        assert!(unknown(&["Relation spark_catalog.default.t[id#0] parquet"]).is_some());
    }

    #[test]
    fn views_of_subqueries_are_found() {
        let of_source = ["+- View (`source`, [id#2L])", "   +- Relation [id#2L] parquet"];
        let with = |lines: &[&'static str]| [lines, &of_source].concat();
        check(&with(&["Project [id#2L]"]), Ok(&[]));
        check(
            &with(&[
                "Project [scalar-subquery#45 [] AS m#46L]",
                ":  +- Aggregate [max(id#3L) AS max(id)#48L]",
                ":     +- SubqueryAlias g",
                ":        +- View (`global_temp`.`g`, [id#3L])",
                ":           +- Project [id#3L]",
                ":              +- View (`a``b, [c]`, [id#3L])",
                ":                 +- Relation [id#3L] parquet",
            ]),
            Ok(&["`a``b, [c]`"]),
        );
        check(
            &with(&[
                "Filter (id#2L < scalar-subquery#1 [])",
                ":  +- Aggregate [max(id#3L) AS max(id)#4L]",
                ":     +- Relation [id#3L] parquet",
            ]),
            Err(Unlisted),
        );
        // These become joins.
        check(
            &with(&[
                "Filter (id#2L IN (list#34 []))",
                ":  +- Project [id#3L]",
                ":     +- Relation [id#3L] parquet",
            ]),
            Ok(&[]),
        );
        // A view above the subquery does not list it.
        check(
            &[
                "View (`outer`, [id#2L])",
                "+- Project [id#2L, scalar-subquery#5 [] AS m#6L]",
                "   :  +- Aggregate [max(id#3L) AS max(id)#7L]",
                "   :     +- Relation [id#3L] parquet",
                "   +- Relation [id#2L] parquet",
            ],
            Err(Unlisted),
        );
    }

    #[test]
    fn what_with_defines_is_followed() {
        let query = |source: &'static str, of: &'static str| {
            vec![
                "WithCTE",
                ":- CTERelationDef #0, false",
                ":  +- SubqueryAlias c",
                ":     +- Project [id#1L]",
                source,
                ":           +- Relation [id#1L] parquet",
                ":- CTERelationDef #2, false",
                ":  +- SubqueryAlias d",
                ":     +- CTERelationRef #0, true, [id#1L], false, false",
                "+- Project [id#3L, scalar-subquery#4 [] AS m#5L]",
                "   :  +- Aggregate [max(id#6L) AS max(id)#7L]",
                of,
                "   +- Range (0, 10, step=1, splits=Some(2))",
            ]
        };
        let (view, no_view) = (":        +- View (`other`, [id#1L])", ":        +- Filter (id#1L > 0)");
        let (taken, not_taken) = (
            "   :     +- CTERelationRef #2, true, [id#6L], false, false",
            "   :     +- Range (0, 10, step=1, splits=Some(2))",
        );
        check(&query(view, taken), Ok(&["`other`"]));
        check(&query(no_view, taken), Err(Unlisted));
        check(&query(no_view, not_taken), Ok(&[]));
    }
}
