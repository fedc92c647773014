//! Figures of benches: sections selected by name, rates and medians.

use std::time::{Duration, Instant};

/// How long one rate is measured.
const SAMPLE_TIME: Duration = Duration::from_millis(200);

/// Number of calls between two readings of the clock.
const CALL_BATCH: u32 = 32;

/// The sections of a bench that the command line names.
pub struct Sections(Vec<String>);

impl Sections {
    /// Reads all arguments that are not flags.
    pub fn from_arguments() -> Self {
        let arguments = std::env::args().skip(1);
        Self(arguments.filter(|a| !a.starts_with('-')).collect())
    }

    /// Returns whether a section runs. All sections run if the command line names none.
    pub fn contain(&self, name: &str) -> bool {
        self.0.is_empty() || self.name(name)
    }

    /// Returns whether the command line names a section.
    pub fn name(&self, name: &str) -> bool {
        self.0.iter().any(|part| name.contains(part.as_str()))
    }
}

/// Returns the median of figures; of two figures in the middle, the greater one.
pub fn median(figures: &[f64]) -> f64 {
    let mut figures = figures.to_vec();
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// Returns the median of `rounds` rates, in calls per second.
pub fn rate(rounds: usize, mut work: impl FnMut()) -> f64 {
    let mut one = || {
        let began = Instant::now();
        let mut n = 0_u32;
        while began.elapsed() < SAMPLE_TIME {
            for _ in 0..CALL_BATCH {
                work();
            }
            n += CALL_BATCH;
        }
        f64::from(n) / began.elapsed().as_secs_f64()
    };
    let rates: Vec<f64> = (0..rounds).map(|_| one()).collect();
    median(&rates)
}
