//! `README.md`.

use std::fmt::Write as _;

use super::super::tables::Table;
use super::Description;

impl Description<'_> {
    pub(super) fn readme(&self) -> String {
        let (since, until) = self.range;
        let facts = self.facts;
        let mut text = format!("# {}\n\n{}\n\n", self.title(), self.summary());
        let mut add = |line: &str| {
            text += line;
            text.push('\n');
        };
        add(&format!(
            "The dataset holds the {} days from {since} to {until}, in UTC. {} of them are complete: \
             their numbers before rounding were what was true at their end. {} are days on which \
             the directory did not run, on {} a source missed events around midnight, and on {} not \
             every source came past midnight within a week.\n",
            facts.days, facts.complete, facts.missed, facts.gap, facts.not_covered
        ));
        add("## Files\n");
        for (table, written) in self.tables {
            add(&format!(
                "- `{}` and `{}`: {}; {} rows, the same in both.",
                written.csv.name,
                written.parquet.name,
                lower(table.title),
                written.rows
            ));
        }
        add(
            "- `datapackage.json` and `croissant.json`: the tables and their columns, for programs.",
        );
        add("- `provenance.json`: sources with their cursors, gaps, and the thresholds.");
        add("- `CITATION.cff`: how to cite this dataset.");
        add("- `SHA256SUMS`: hashes of all files; `sha256sum -c SHA256SUMS` checks them.\n");
        self.control(&mut add);
        for (table, _) in self.tables {
            add(&format!("## Table `{}`\n", table.name));
            add(&format!("{}. {}\n", table.title, table.about));
            add(&columns(table));
        }
        add("## Use\n");
        add(&format!(
            "The licence is {} ({}). Please cite the dataset as `CITATION.cff` says; its version, {}, \
             is its last day. It is made from days that are closed: their numbers change no more, but \
             `complete`, `gap` and `gaps` can show later that events were missed.",
            self.request.settings.license,
            self.licence_url(),
            self.version()
        ));
        text
    }

    fn control(&self, add: &mut impl FnMut(&str)) {
        add("## What is not shown\n");
        let threshold = self.request.settings.threshold;
        if threshold == 1 {
            add(
                "Every number is shown as it was counted. Those of small groups tell of single accounts.\n",
            );
            return;
        }
        add(&format!(
            "No account is named. Numbers of accounts, and of what happened on a day, are rounded to \
             multiples of {threshold}, up or down, by a key that is not published. A number has one \
             rounding: it is the same on each day and in each dataset. The mean of many rounded \
             numbers is right; a single one is less than {threshold} away. A number of accounts that \
             comes to less than {} is not shown, and a group of accounts has a row only on days on \
             which its number is shown. So nothing is shown of a group of {threshold} accounts or \
             fewer.\n\nRounded numbers do not add up: `enrolled` of a day is only nearly that of the \
             day before with what happened, and only nearly the sum of all hosts.\n",
            self.smallest
        ));
    }
}

fn columns(table: &Table) -> String {
    let mut text = "| column | meaning |\n|---|---|\n".to_owned();
    for column in table.columns {
        // A text takes every write.
        let _ = writeln!(text, "| `{}` | {} |", column.name, column.about);
    }
    text
}

fn lower(title: &str) -> String {
    let mut chars = title.chars();
    let first = chars.next().map(|c| c.to_ascii_lowercase());
    first.into_iter().chain(chars).collect()
}
