//! The directory under accidents and attacks: names, order, absence, losses upstream, bounds.

mod absence;
mod bounds;
mod chain;
mod listings;
mod losses;
mod names;
mod order;
mod poison;

/// Prints the means of an attack and the harm to others.
pub(crate) fn print_harm(attack: &str, means: &str, harm: &str) {
    println!("attack: {attack}\n  means: {means}\n  harm:  {harm}");
}
