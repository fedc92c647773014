//! The messages of OTLP that carry metrics
//! (OpenTelemetry protocol 1, `opentelemetry/proto/metrics/v1/metrics.proto`). Fields that are never
//! set here are left out.

use atcomm_proto::clock::Timestamp;

use super::page::{Buckets, Family, Labels, Values};

/// `AGGREGATION_TEMPORALITY_CUMULATIVE`: values since the start.
const CUMULATIVE: i32 = 2;

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ExportMetricsServiceRequest {
    #[prost(message, repeated, tag = "1")]
    pub(super) resource_metrics: Vec<ResourceMetrics>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ResourceMetrics {
    #[prost(message, optional, tag = "1")]
    pub(super) resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub(super) scope_metrics: Vec<ScopeMetrics>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct ScopeMetrics {
    #[prost(message, repeated, tag = "2")]
    pub(super) metrics: Vec<Metric>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Metric {
    #[prost(string, tag = "1")]
    pub(super) name: String,
    #[prost(string, tag = "2")]
    pub(super) description: String,
    #[prost(oneof = "Data", tags = "5, 7, 9")]
    pub(super) data: Option<Data>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Data {
    #[prost(message, tag = "5")]
    Gauge(Gauge),
    #[prost(message, tag = "7")]
    Sum(Sum),
    #[prost(message, tag = "9")]
    Histogram(Histogram),
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Gauge {
    #[prost(message, repeated, tag = "1")]
    pub(super) data_points: Vec<NumberDataPoint>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Sum {
    #[prost(message, repeated, tag = "1")]
    pub(super) data_points: Vec<NumberDataPoint>,
    #[prost(int32, tag = "2")]
    pub(super) aggregation_temporality: i32,
    #[prost(bool, tag = "3")]
    pub(super) is_monotonic: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Histogram {
    #[prost(message, repeated, tag = "1")]
    pub(super) data_points: Vec<HistogramDataPoint>,
    #[prost(int32, tag = "2")]
    pub(super) aggregation_temporality: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct NumberDataPoint {
    #[prost(fixed64, tag = "2")]
    pub(super) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    pub(super) time_unix_nano: u64,
    #[prost(double, optional, tag = "4")]
    pub(super) as_double: Option<f64>,
    #[prost(message, repeated, tag = "7")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HistogramDataPoint {
    #[prost(fixed64, tag = "2")]
    pub(super) start_time_unix_nano: u64,
    #[prost(fixed64, tag = "3")]
    pub(super) time_unix_nano: u64,
    #[prost(fixed64, tag = "4")]
    pub(super) count: u64,
    #[prost(double, optional, tag = "5")]
    pub(super) sum: Option<f64>,
    #[prost(fixed64, repeated, tag = "6")]
    pub(super) bucket_counts: Vec<u64>,
    #[prost(double, repeated, tag = "7")]
    pub(super) explicit_bounds: Vec<f64>,
    #[prost(message, repeated, tag = "9")]
    pub(super) attributes: Vec<KeyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct KeyValue {
    #[prost(string, tag = "1")]
    pub(super) key: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<AnyValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct AnyValue {
    #[prost(string, optional, tag = "1")]
    pub(super) string_value: Option<String>,
}

/// When values were recorded.
#[derive(Clone, Copy)]
pub(super) struct Moment {
    /// Since when counters count.
    pub(super) started: Timestamp,
    pub(super) now: Timestamp,
}

/// Makes the request that exports metrics. Prometheus makes the labels `job` and `instance` of the
/// service's name and instance.
pub(super) fn request(
    instance: &str,
    families: &[Family],
    moment: Moment,
) -> ExportMetricsServiceRequest {
    let attributes = [
        ("service.name", "atcomm"),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("service.instance.id", instance),
    ];
    let attributes = attributes.map(|(key, value)| key_value(key, value));
    let metrics = families.iter().map(|family| metric(family, moment));
    let scope = ScopeMetrics {
        metrics: metrics.collect(),
    };
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes: attributes.into(),
            }),
            scope_metrics: vec![scope],
        }],
    }
}

fn metric(family: &Family, moment: Moment) -> Metric {
    let numbers = |values: &[(Labels, f64)]| {
        let point = |(labels, value): &(Labels, f64)| NumberDataPoint {
            start_time_unix_nano: nanos(moment.started),
            time_unix_nano: nanos(moment.now),
            as_double: Some(*value),
            attributes: attributes(labels),
        };
        values.iter().map(point).collect()
    };
    let data = match &family.values {
        Values::Gauge(values) => Data::Gauge(Gauge {
            data_points: numbers(values),
        }),
        Values::Counter(values) => Data::Sum(Sum {
            data_points: numbers(values),
            aggregation_temporality: CUMULATIVE,
            is_monotonic: true,
        }),
        Values::Histogram(values) => {
            let point = |(labels, buckets): &(Labels, Buckets)| histogram(labels, buckets, moment);
            Data::Histogram(Histogram {
                data_points: values.iter().map(point).collect(),
                aggregation_temporality: CUMULATIVE,
            })
        }
    };
    Metric {
        name: family.name.clone(),
        description: family.help.clone(),
        data: Some(data),
    }
}

fn histogram(labels: &Labels, buckets: &Buckets, moment: Moment) -> HistogramDataPoint {
    let mut before = 0;
    let counts = buckets.cumulative.iter().map(|up_to| {
        let count = up_to.saturating_sub(before);
        before = *up_to;
        count
    });
    HistogramDataPoint {
        start_time_unix_nano: nanos(moment.started),
        time_unix_nano: nanos(moment.now),
        count: buckets.count,
        sum: Some(buckets.sum),
        bucket_counts: counts.collect(),
        explicit_bounds: buckets.bounds.clone(),
        attributes: attributes(labels),
    }
}

fn attributes(labels: &Labels) -> Vec<KeyValue> {
    let pairs = labels.iter();
    pairs.map(|(key, value)| key_value(key, value)).collect()
}

fn key_value(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            string_value: Some(value.to_owned()),
        }),
    }
}

/// Returns the nanoseconds since 1970.
fn nanos(time: Timestamp) -> u64 {
    let millis = u64::try_from(time.millis()).unwrap_or(0);
    millis.saturating_mul(1_000_000)
}
