//! What the turns of the load say.
#![expect(clippy::print_stdout, reason = "a bench prints its figures")]

use super::load::{Form, Side, Turn, Turns};
use crate::{figures::Figures, ledger::bench::median};

/// The places of the sides.
const NULL: usize = 0;
const CHECK: usize = 1;
const REDIS: usize = 2;

/// The median over the rounds of what two turns of one round have to do with each other.
fn ratio(one: &[Turn], other: &[Turn], of: impl Fn(&Turn) -> f64) -> f64 {
    median(one.iter().zip(other).map(|(one, other)| of(one) / of(other)).collect())
}

fn typical(turns: &[Turn], of: impl Fn(&Turn) -> f64) -> f64 {
    median(turns.iter().map(of).collect())
}

/// Prints each side of each form, adds its figures, and the worst of each ratio under its plain name.
pub(super) fn add(sides: &[Side], forms: &[(Form, Turns)], figures: &mut Figures) {
    let mut worst = [f64::MAX, f64::MIN, f64::MAX, f64::MAX, f64::MAX];
    for (form, turns) in forms {
        let (callers, what) = match form {
            Form::Unary(callers) => (callers, "calls"),
            Form::Streamed(callers) => (callers, "streamed"),
        };
        for (side, turns) in sides.iter().zip(turns) {
            let name = side.name;
            let (rate, worked) = (typical(turns, Turn::rate), typical(turns, Turn::worked_us));
            let [p50, p99] = [0.5, 0.99].map(|quantile| typical(turns, |turn| turn.quantile_us(quantile)));
            println!(
                "{what} at {callers}, {name}: {rate:.0} answers/s, p50 {p50:.0} us, p99 {p99:.0} us, \
                 {worked:.1} us of its process for an answer"
            );
            figures.add(&format!("{name}_{what}_at_{callers}_per_s"), rate);
            figures.add(&format!("{name}_{what}_at_{callers}_worked_us"), worked);
            if matches!(form, Form::Unary(_)) {
                figures.add(&format!("{name}_{what}_at_{callers}_p50_us"), p50);
                figures.add(&format!("{name}_{what}_at_{callers}_p99_us"), p99);
            }
        }
        let mut note = |place: usize, name: &str, ratio: f64| {
            worst[place] = if place == 1 { worst[place].max(ratio) } else { worst[place].min(ratio) };
            figures.add(&format!("{name}_at_{callers}_ratio"), ratio);
        };
        let check = &turns[CHECK];
        match form {
            Form::Unary(_) => {
                note(0, "check_vs_null", ratio(check, &turns[NULL], Turn::rate));
                note(1, "check_p99_vs_null", ratio(check, &turns[NULL], |turn| turn.quantile_us(0.99)));
                note(2, "check_vs_redis", ratio(check, &turns[REDIS], Turn::rate));
            }
            Form::Streamed(_) => {
                let unary = forms.iter().find(|(other, _)| *other == Form::Unary(*callers));
                if let Some((_, unary)) = unary {
                    note(3, "batched_vs_unary", ratio(check, &unary[CHECK], Turn::rate));
                }
                note(4, "streamed_vs_redis", ratio(check, &turns[REDIS], Turn::rate));
            }
        }
    }
    let names =
        ["check_vs_null", "check_p99_vs_null", "check_vs_redis", "batched_vs_unary", "streamed_vs_redis"];
    for (name, ratio) in names.into_iter().zip(worst) {
        figures.add(&format!("{name}_ratio"), ratio);
    }
}
