//! How sure a rate is that was seen a few times only.
//!
//! Wilson's score interval (E. B. Wilson, JASA 22, 1927): it stays inside 0 to 1 and is honest for
//! small counts and for counts of none or all, which is where boots live.

/// Wilson interval of a rate that was seen as `hits` of `of`, at level `confidence` (0 to 1, both
/// sides together). (0, 1) where nothing was seen.
pub fn wilson(hits: u32, of: u32, confidence: f64) -> (f64, f64) {
    if of == 0 {
        return (0.0, 1.0);
    }
    let (hits, n) = (f64::from(hits.min(of)), f64::from(of));
    let z = normal_quantile(0.5 + confidence.clamp(0.0, 0.999_999) / 2.0);
    let rate = hits / n;
    let scale = 1.0 + z * z / n;
    let centre = rate + z * z / (2.0 * n);
    let spread = z * (rate * (1.0 - rate) / n + z * z / (4.0 * n * n)).sqrt();
    // At no hits the lower end is 0 and at all hits the upper end is 1, but for rounding.
    let low = if hits == 0.0 { 0.0 } else { (centre - spread) / scale };
    let high = if hits == n { 1.0 } else { (centre + spread) / scale };
    (low.clamp(0.0, 1.0), high.clamp(0.0, 1.0))
}

/// The quantile of the standard normal distribution for `p` in (0, 1), good to 1e-9: bisection of
/// the distribution function, which is asked for once per matrix and needs no table.
fn normal_quantile(p: f64) -> f64 {
    let (mut low, mut high) = (-8.0f64, 8.0f64);
    for _ in 0..80 {
        let middle = f64::midpoint(low, high);
        if normal_below(middle) < p { low = middle } else { high = middle }
    }
    f64::midpoint(low, high)
}

/// Standard normal distribution function: the series of Abramowitz and Stegun 26.2.10, which
/// converges for every argument; 200 terms are plenty up to 8.
fn normal_below(x: f64) -> f64 {
    let (mut term, mut sum) = (x, x);
    for k in 1..200 {
        term *= x * x / f64::from(2 * k + 1);
        sum += term;
    }
    0.5 + sum * (-x * x / 2.0).exp() / (2.0 * std::f64::consts::PI).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(a: f64, b: f64) -> bool {
        (a - b).abs() < 5e-4
    }

    #[test]
    fn published_values() {
        // Newcombe, Statistics in Medicine 17 (1998), table I, method 3.
        for (hits, of, low, high) in [
            (81, 263, 0.2553, 0.3662),
            (15, 148, 0.0624, 0.1605),
            (0, 20, 0.0, 0.1611),
            (1, 29, 0.0061, 0.1718),
        ] {
            let (l, h) = wilson(hits, of, 0.95);
            assert!(near(l, low) && near(h, high), "{hits} of {of}: {l} to {h}");
        }
    }

    #[test]
    fn the_ends_are_exact() {
        assert_eq!(wilson(0, 0, 0.95), (0.0, 1.0));
        assert_eq!(wilson(0, 5, 0.95).0, 0.0);
        assert_eq!(wilson(5, 5, 0.95).1, 1.0);
        assert!(near(normal_quantile(0.975), 1.959_96));
    }
}
