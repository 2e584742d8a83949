//! Which of the known names somebody meant.

/// The name that was probably meant: few slips away, part of what was written or the other way round, or begun alike.
pub(crate) fn nearest<'a>(written: &str, known: &[&'a str]) -> Option<&'a str> {
    let written = written.to_lowercase().replace('-', "_");
    let slips_max = 1 + written.chars().count() / 4;
    let by_slips = known
        .iter()
        .map(|name| (slips(&written, name), *name))
        .filter(|(slips, _)| *slips <= slips_max)
        .min();
    let is_part = |name: &&&str| {
        name.len() > 3 && written.contains(**name) || written.len() > 3 && name.contains(&written)
    };
    let begins_alike =
        |name: &&&str| written.bytes().zip(name.bytes()).take_while(|(a, b)| a == b).count() > 3;
    let by_part = || known.iter().find(is_part).or_else(|| known.iter().find(begins_alike)).copied();
    by_slips.map(|(_, name)| name).or_else(by_part)
}

/// Slips between the two: a letter too many, missing, wrong, or swapped with its neighbour (the optimal string alignment
/// distance; G. Navarro, "A guided tour to approximate string matching", 2001).
fn slips(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before_last = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let wrong = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = wrong.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                let swapped: &Vec<usize> = &before_last;
                best = best.min(swapped[j - 2] + 1);
            }
            row.push(best);
        }
        before_last = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_meant_is_found_and_nothing_is_guessed() {
        let known = ["total", "attempt", "retry", "breaker", "bulkhead", "min", "max"];
        for (written, meant) in [
            ("atempt", Some("attempt")),
            ("attmept", Some("attempt")),
            ("Total", Some("total")),
            ("retries", Some("retry")),
            ("circuit-breaker", Some("breaker")),
            ("bulk", Some("bulkhead")),
            ("mix", Some("max")),
            ("colour", None),
            ("", None),
        ] {
            assert_eq!(nearest(written, &known), meant, "{written}");
        }
    }
}
