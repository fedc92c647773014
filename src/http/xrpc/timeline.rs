//! The method about the time series.

use axum::response::Response;

use super::super::error::XrpcError;
use super::super::params::Params;
use super::{JSON, Query, cacheable, etag_of};
use crate::directory::{Interval, MAX_BUCKETS, Timeline};
use crate::store::directory::{Day, GroupKind, MAX_DAYS};

/// Buckets of an answer without `since`.
const DEFAULT_BUCKETS: i32 = 30;

/// Longest name of a group, in bytes.
const MAX_NAME: usize = 255;

pub(super) async fn get_timeline(query: Query) -> Result<Response, XrpcError> {
    let directory = query.shared.resolver.directory();
    let timeline = timeline(&query.params(), directory.today())?;
    let _slot = query.shared.acquire_slot()?;
    let permit = query.shared.acquire_response(query.client)?;
    let body = permit.attach(directory.timeline(timeline).await?);
    Ok(cacheable(&body, &etag_of(&body), JSON, &query.headers))
}

/// Reads the parameters of the method.
fn timeline(params: &Params<'_>, today: Day) -> Result<Timeline, XrpcError> {
    let (interval, days) = match params.one("interval")?.as_deref() {
        None | Some("day") => (Interval::Day, 1),
        Some("week") => (Interval::Week, 7),
        Some("month") => (Interval::Month, 31),
        Some(_) => {
            return Err(XrpcError::invalid(
                "parameter interval is none of day, week and month",
            ));
        }
    };
    let until = date(params, "until")?.unwrap_or(today);
    let earliest = until.plus(1 - DEFAULT_BUCKETS * days);
    let since = date(params, "since")?.unwrap_or(earliest);
    if since > until {
        return Err(XrpcError::invalid("parameter since is later than until"));
    }
    let most = MAX_DAYS.min(MAX_BUCKETS * days);
    if until.since(since) >= most {
        return Err(XrpcError::invalid(format!(
            "parameter since is more than {most} days before until"
        )));
    }
    Ok(Timeline {
        interval,
        since,
        until,
        group: group(params)?,
    })
}

/// Reads a date.
fn date(params: &Params<'_>, name: &str) -> Result<Option<Day>, XrpcError> {
    let Some(text) = params.one(name)? else {
        return Ok(None);
    };
    Day::parse(&text).map(Some).ok_or_else(|| {
        XrpcError::invalid(format!(
            "parameter {name} is not a date, as in ?{name}=2026-12-01"
        ))
    })
}

/// Reads the group.
fn group(params: &Params<'_>) -> Result<Option<(GroupKind, Option<String>)>, XrpcError> {
    let name = params.one("name")?;
    let Some(kind) = params.one("group")? else {
        return match name {
            None => Ok(None),
            Some(_) => Err(XrpcError::invalid("parameter name is given without group")),
        };
    };
    let kind = GroupKind::parse(&kind).ok_or_else(|| {
        XrpcError::invalid("parameter group is none of host, mediator, keyType and rule")
    })?;
    if name
        .as_ref()
        .is_some_and(|name| name.is_empty() || name.len() > MAX_NAME)
    {
        return Err(XrpcError::invalid(format!(
            "parameter name is not from 1 to {MAX_NAME} bytes long"
        )));
    }
    Ok(Some((kind, name.map(|name| name.into_owned()))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(query: &str) -> Result<Timeline, String> {
        let today = Day::parse("2027-03-01").unwrap();
        timeline(&Params::of_query(query), today).map_err(|error| format!("{error:?}"))
    }

    #[test]
    fn a_range_is_read_and_bounded() {
        let all = read("").unwrap();
        assert_eq!(all.interval, Interval::Day);
        assert_eq!(all.until.since(all.since), DEFAULT_BUCKETS - 1);
        assert_eq!(all.group, None);
        let year = read("interval=week&since=2026-03-02&until=2027-03-01").unwrap();
        assert_eq!(year.since.to_string(), "2026-03-02");
        let host = read("group=host&name=pds.example.com").unwrap();
        let name = Some("pds.example.com".to_owned());
        assert_eq!(host.group, Some((GroupKind::Host, name)));
        assert!(read("since=2024-02-26").is_ok());
        assert!(read("interval=month&since=2017-02-22").is_ok());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (query, name) in [
            ("interval=hour", "interval"),
            ("interval=", "interval"),
            ("interval=day&interval=day", "interval"),
            ("since=yesterday", "since"),
            ("since=2027-02-29", "since"),
            ("since=2027-03-02", "since"),
            ("until=1", "until"),
            ("until=", "until"),
            ("since=2024-02-25", "since"),
            ("interval=week&since=2017-02-21", "since"),
            ("since=1970-01-01&until=9999-12-31", "since"),
            ("group=planet", "group"),
            ("name=x", "name"),
            ("group=host&name=", "name"),
            ("group=host&group=rule", "group"),
        ] {
            let message = read(query).unwrap_err();
            assert!(
                message.contains(&format!("parameter {name}")),
                "{query}: {message}"
            );
        }
        let long = format!("group=host&name={}", "a".repeat(256));
        assert!(read(&long).unwrap_err().contains("parameter name"));
    }
}
