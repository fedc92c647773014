use metrics_exporter_prometheus::{Matcher, PrometheusBuilder};

use super::message::{Data, Moment, request};
use super::page::{Values, families};
use super::*;

/// Returns a page with a metric of each kind, as the recorder writes it.
fn page() -> String {
    let seconds = Matcher::Suffix("_seconds".to_owned());
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(seconds, &[0.1, 1.0])
        .unwrap()
        .build_recorder();
    metrics::with_local_recorder(&recorder, || {
        metrics::describe_counter!("requests_total", "Requests, with {braces} and \"quotes\"");
        metrics::counter!("requests_total", "status" => "200", "path" => "a\\b\"c\n,d=\"}")
            .increment(3);
        metrics::counter!("requests_total", "status" => "404", "path" => "").increment(1);
        metrics::gauge!("temperature").set(-1.5);
        metrics::describe_gauge!("unused", "Never set");
        for (method, took) in [("one", 0.05), ("one", 0.5), ("one", 5.0), ("two", 0.5)] {
            metrics::histogram!("took_seconds", "method" => method).record(took);
        }
    });
    let handle = recorder.handle();
    handle.run_upkeep();
    handle.render()
}

fn pair(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

#[test]
fn a_page_is_read_as_it_was_written() {
    let families = families(&page());
    let names: Vec<&str> = families.iter().map(|family| family.name.as_str()).collect();
    assert_eq!(names, ["requests_total", "temperature", "took_seconds"]);
    assert!(families[0].help.contains("{braces}"), "{families:?}");
    let Values::Counter(requests) = &families[0].values else {
        panic!("{families:?}");
    };
    let odd = requests.iter().find(|(_, value)| *value == 3.0).unwrap();
    assert!(odd.0.contains(&pair("path", "a\\b\"c\n,d=\"}")), "{odd:?}");
    assert!(odd.0.contains(&pair("status", "200")), "{odd:?}");
    assert_eq!(families[1].values, Values::Gauge(vec![(Vec::new(), -1.5)]));
    let Values::Histogram(took) = &families[2].values else {
        panic!("{families:?}");
    };
    let one = took
        .iter()
        .find(|(labels, _)| *labels == [pair("method", "one")]);
    let one = &one.unwrap().1;
    assert_eq!(
        (&one.bounds[..], &one.cumulative[..]),
        (&[0.1, 1.0][..], &[1, 2, 3][..])
    );
    assert_eq!((one.sum, one.count), (5.55, 3));
    assert_eq!(took.len(), 2);
}

#[test]
fn counters_and_histograms_are_cumulative() {
    let moment = Moment {
        started: Timestamp::from_millis(1000),
        now: Timestamp::from_millis(2000),
    };
    let request = request("here", &families(&page()), moment);
    let resource = &request.resource_metrics[0];
    let metrics = &resource.scope_metrics[0].metrics;
    let Some(Data::Sum(sum)) = &metrics[0].data else {
        panic!("{metrics:?}");
    };
    assert!(sum.is_monotonic && sum.aggregation_temporality == 2);
    assert_eq!(sum.data_points[0].start_time_unix_nano, 1_000_000_000);
    assert_eq!(sum.data_points[0].time_unix_nano, 2_000_000_000);
    let Some(Data::Histogram(took)) = &metrics[2].data else {
        panic!("{metrics:?}");
    };
    let one = took
        .data_points
        .iter()
        .find(|point| point.count == 3)
        .unwrap();
    assert_eq!(one.bucket_counts, [1, 1, 1]);
    assert_eq!(one.explicit_bounds, [0.1, 1.0]);
}

#[test]
fn lines_that_are_none_are_passed_over() {
    for page in [
        "",
        "x 1",
        "# TYPE x gauge\nx",
        "# TYPE x gauge\nx{a=\"b 1",
        "# TYPE x gauge\nx{a=\"b\\",
        "# TYPE x gauge\nx one",
        "# TYPE x gauge\ny 1",
        "# TYPE x histogram\nx 1",
    ] {
        let read = families(page);
        let counted = read.iter().all(|family| family.name == "x");
        assert!(counted && read.len() <= 1, "{page:?}: {read:?}");
    }
}
