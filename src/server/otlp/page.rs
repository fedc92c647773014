//! Reads the page of `/metrics` that this process has written.

/// All values of one metric.
#[derive(Debug, PartialEq)]
pub(super) struct Family {
    pub(super) name: String,
    pub(super) help: String,
    pub(super) values: Values,
}

#[derive(Debug, PartialEq)]
pub(super) enum Values {
    Counter(Vec<(Labels, f64)>),
    Gauge(Vec<(Labels, f64)>),
    Histogram(Vec<(Labels, Buckets)>),
}

/// Names and values of labels.
pub(super) type Labels = Vec<(String, String)>;

/// What a histogram has counted.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Buckets {
    /// Upper bounds of all buckets but the last, which has none.
    pub(super) bounds: Vec<f64>,
    /// The values up to each bound, and all values behind them.
    pub(super) cumulative: Vec<u64>,
    pub(super) sum: f64,
    pub(super) count: u64,
}

/// Reads the metrics of a page that have values. A line that cannot be read is passed over.
pub(super) fn families(page: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    let mut help = "";
    for line in page.lines() {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            help = rest.split_once(' ').map_or("", |(_, help)| help);
        } else if let Some((name, kind)) = typed(line) {
            let values = match kind {
                "counter" => Values::Counter(Vec::new()),
                "histogram" => Values::Histogram(Vec::new()),
                _ => Values::Gauge(Vec::new()),
            };
            families.push(Family {
                name: name.to_owned(),
                help: std::mem::take(&mut help).to_owned(),
                values,
            });
        } else if let (Some(family), Some(sample)) = (families.last_mut(), Sample::read(line)) {
            family.add(sample);
        }
    }
    families.retain(|family| !family.is_empty());
    families
}

fn typed(line: &str) -> Option<(&str, &str)> {
    line.strip_prefix("# TYPE ")?.split_once(' ')
}

impl Family {
    fn is_empty(&self) -> bool {
        match &self.values {
            Values::Counter(values) | Values::Gauge(values) => values.is_empty(),
            Values::Histogram(values) => values.is_empty(),
        }
    }

    fn add(&mut self, sample: Sample<'_>) {
        let part = sample.name.strip_prefix(self.name.as_str());
        match (&mut self.values, part) {
            (Values::Counter(values) | Values::Gauge(values), Some("")) => {
                values.push((sample.labels, sample.value));
            }
            (Values::Histogram(values), Some(part)) => add_part(values, part, sample),
            _ => {}
        }
    }
}

/// Adds one line of a histogram: those of the same labels follow each other.
fn add_part(values: &mut Vec<(Labels, Buckets)>, part: &str, mut sample: Sample<'_>) {
    let bound = sample.labels.iter().position(|(name, _)| name == "le");
    let bound = bound.map(|at| sample.labels.remove(at).1);
    if values
        .last()
        .is_none_or(|(labels, _)| *labels != sample.labels)
    {
        values.push((sample.labels, Buckets::default()));
    }
    let Some((_, buckets)) = values.last_mut() else {
        return;
    };
    // Counts are written as whole numbers, and stay exact up to 2^53.
    let count = sample.value as u64;
    match (part, bound.as_deref()) {
        ("_bucket", Some("+Inf")) => buckets.cumulative.push(count),
        ("_bucket", Some(bound)) => {
            if let Ok(bound) = bound.parse() {
                buckets.bounds.push(bound);
                buckets.cumulative.push(count);
            }
        }
        ("_sum", _) => buckets.sum = sample.value,
        ("_count", _) => buckets.count = count,
        _ => {}
    }
}

/// A line with a value.
struct Sample<'p> {
    name: &'p str,
    labels: Labels,
    value: f64,
}

impl<'p> Sample<'p> {
    fn read(line: &'p str) -> Option<Self> {
        let end = line.find(['{', ' '])?;
        let (name, rest) = line.split_at(end);
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => read_labels(rest)?,
            None => (Labels::new(), rest),
        };
        let value = value.trim().parse().ok()?;
        (!name.starts_with('#')).then_some(Self {
            name,
            labels,
            value,
        })
    }
}

/// Reads labels up to the closing brace. Returns what follows it, too.
fn read_labels(mut text: &str) -> Option<(Labels, &str)> {
    let mut labels = Labels::new();
    loop {
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, rest) = text.split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.push((name.trim_start_matches(',').to_owned(), value));
        text = &rest[end + 1..];
    }
}
