//! What a measurement gives.

use std::time::Duration;

/// The result of one measurement.
#[derive(Clone, Copy)]
pub struct Figures {
    pub per_second: f64,
    /// Of the backend's time on a processor, in microseconds.
    pub cpu_per_request: f64,
    /// In microseconds.
    pub median_latency: f64,
    /// That of which only one in a hundred takes longer.
    pub p99_latency: f64,
}

impl Figures {
    pub fn of(mut latencies: Vec<Duration>, elapsed: Duration, cpu: Duration) -> Self {
        latencies.sort_unstable();
        let count = latencies.len();
        let latency = |percent: usize| latencies[count * percent / 100].as_secs_f64() * 1e6;
        Figures {
            per_second: count as f64 / elapsed.as_secs_f64(),
            cpu_per_request: cpu.as_secs_f64() * 1e6 / count as f64,
            median_latency: latency(50),
            p99_latency: latency(99),
        }
    }
}

/// The middle one.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
