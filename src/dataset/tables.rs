//! The tables of a dataset: their columns, with what each means.

/// A table.
pub(super) struct Table {
    /// Its name, and that of its files.
    pub(super) name: &'static str,
    /// What a row stands for.
    pub(super) title: &'static str,
    /// More about it, in sentences.
    pub(super) about: &'static str,
    /// The columns that name a row.
    pub(super) key: &'static [&'static str],
    /// All columns, in order.
    pub(super) columns: &'static [Column],
}

/// A column.
pub(super) struct Column {
    /// Its name.
    pub(super) name: &'static str,
    /// What its values are.
    pub(super) kind: Kind,
    /// Whether every row has a value.
    pub(super) required: bool,
    /// What it means, as a sentence.
    pub(super) about: &'static str,
}

/// What the values of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A day in UTC.
    Day,
    /// A time in UTC, exact to a second.
    Time,
    /// Text.
    Text,
    /// True or false.
    Flag,
    /// A whole number, not below zero.
    Number,
}

/// A value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value<'v> {
    /// Of [`Kind::Day`].
    Day(crate::store::directory::Day),
    /// Of [`Kind::Time`].
    Time(Option<atcomm_proto::clock::Timestamp>),
    /// Of [`Kind::Text`].
    Text(&'v str),
    /// Of [`Kind::Flag`].
    Flag(bool),
    /// Of [`Kind::Number`].
    Number(Option<u64>),
}

const fn column(name: &'static str, kind: Kind, about: &'static str) -> Column {
    Column {
        name,
        kind,
        required: true,
        about,
    }
}

/// A number that is rounded, and may be too small to be shown.
const fn rounded(name: &'static str, about: &'static str) -> Column {
    Column {
        name,
        kind: Kind::Number,
        required: false,
        about,
    }
}

/// One row for each day.
pub(super) static DAILY: Table = Table {
    name: "daily",
    title: "One row for each day in UTC",
    about: "How many accounts are enrolled, and how that changed. Numbers are rounded; one that is \
            empty is too small to be shown.",
    key: &["day"],
    columns: &[
        column("day", Kind::Day, "The day, in UTC."),
        rounded(
            "enrolled",
            "Accounts at its end that are active and have a valid key package.",
        ),
        rounded(
            "inactive",
            "Accounts at its end with a key package that are not active.",
        ),
        rounded(
            "invalid",
            "Active accounts at its end whose key package breaks a rule.",
        ),
        rounded("new", "Accounts that enrolled for the first time."),
        rounded("returned", "Accounts that enrolled again."),
        rounded(
            "found",
            "Accounts that had enrolled on an earlier day and were not known.",
        ),
        rounded("departed", "Accounts that were enrolled and are no more."),
        rounded("vouched", "Key changes with a statement of the key before."),
        rounded("unvouched", "Key changes without one."),
        rounded(
            "within_1s",
            "Key packages that were served within a second of their commit.",
        ),
        rounded(
            "within_10s",
            "The same, within ten seconds; those of the columns before do not count.",
        ),
        rounded("within_1m", "The same, within a minute."),
        rounded("within_10m", "The same, within ten minutes."),
        rounded("within_1h", "The same, within an hour."),
        rounded("within_1d", "The same, within a day."),
        rounded("longer", "The same, after more than a day."),
        rounded(
            "uncertain",
            "Accounts, at most, that may have changed on this day and count on a later one.",
        ),
        rounded("hosts", "Hosts of all accounts that are known."),
        rounded(
            "reached",
            "Hosts among them with an account that was proven on this day.",
        ),
        column("begun", Kind::Flag, "True on the first day of the series."),
        column(
            "missed",
            Kind::Flag,
            "True where the directory did not run on this day.",
        ),
        column(
            "gap",
            Kind::Flag,
            "True where a source missed events around the end of the day.",
        ),
        column(
            "covered",
            Kind::Flag,
            "True where all sources came past the end of the day.",
        ),
        column(
            "complete",
            Kind::Flag,
            "True where the numbers before rounding are certain.",
        ),
    ],
};

/// One row for each day and group that is large enough.
pub(super) static GROUPS: Table = Table {
    name: "groups",
    title: "One row for each day and group of accounts",
    about: "A group that is too small to be shown on a day, or is not among the 1,000 largest of its \
            kind, has no row on that day. Numbers are rounded.",
    key: &["kind", "name", "day"],
    columns: &[
        column(
            "kind",
            Kind::Text,
            "What the accounts have in common: host, mediator, keyType or rule.",
        ),
        column(
            "name",
            Kind::Text,
            "The host of their PDS, the host of a mediator that they name, the type of a key \
             agreement key, or the rule that their key package breaks.",
        ),
        column("day", Kind::Day, "The day, in UTC."),
        column(
            "accounts",
            Kind::Number,
            "Accounts in the group at the end of the day.",
        ),
        column(
            "came",
            Kind::Number,
            "Accounts that came to the group on the day.",
        ),
        column(
            "went",
            Kind::Number,
            "Accounts that went from the group on the day.",
        ),
    ],
};

/// One row for each day and source.
pub(super) static SOURCES: Table = Table {
    name: "sources",
    title: "One row for each day and source that was followed or had a gap",
    about: "Relays and Jetstream hosts by their addresses. All PDSes that are followed by themselves \
            are one row, pds: the stream of one host tells of few accounts.",
    key: &["day", "source"],
    columns: &[
        column("day", Kind::Day, "The day, in UTC."),
        column(
            "source",
            Kind::Text,
            "Kind and address of the source; pds: all PDSes together.",
        ),
        column("sources", Kind::Number, "Sources in this row."),
        Column {
            name: "covered_until",
            kind: Kind::Time,
            required: false,
            about: "The last moment that the stream was proven to have missed nothing before, when \
                    the day had ended. Empty for PDSes.",
        },
        Column {
            name: "ended_at",
            kind: Kind::Time,
            required: false,
            about: "When that was looked at.",
        },
        column("gaps", Kind::Number, "Gaps that touch the day."),
        column(
            "gap_ms",
            Kind::Number,
            "Milliseconds of the day that gaps cover, summed up.",
        ),
        rounded(
            "listed",
            "Accounts with a key package that the source listed.",
        ),
        rounded("unknown", "Accounts among them without an entry here."),
        rounded(
            "unlisted",
            "Entries here that it did not list, at least. Empty for PDSes.",
        ),
    ],
};
