//! What contests by turns showed, as one table.

use crate::contest::Contest;

/// Measures `contests` by turns and prints them.
pub(crate) fn print(contests: &mut [Contest], turns: usize) {
    println!("\nby turns, medians\n\n| {:36} |        ns |  ratio |\n|{:-<38}|----------:|-------:|", "", "");
    for contest in contests {
        println!("| **{}** | | |", contest.title);
        for score in contest.by_turns(turns) {
            println!("| {:36} | {:9.0} | {:6.2} |", score.name, score.nanos, score.ratio);
        }
    }
}
