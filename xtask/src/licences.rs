//! Decides whether the licence of a package is one that we accept.
//!
//! An expression of SPDX is `MIT`, `MIT OR Apache-2.0`, `(MIT OR Apache-2.0) AND Unicode-3.0`;
//! `WITH` names an exception and belongs to the licence before it. Old packages write `MIT/Apache-2.0`.

use std::iter::Peekable;
use std::vec::IntoIter;

/// Whether a choice among the licences that `expression` offers lies wholly in `allowed`.
/// What cannot be read is not accepted.
pub(crate) fn is_accepted(expression: &str, allowed: &[String]) -> bool {
    let mut tokens = tokens(expression).into_iter().peekable();
    let accepted = any(&mut tokens, allowed);
    tokens.next().is_none() && accepted == Some(true)
}

type Tokens = Peekable<IntoIter<String>>;

fn tokens(expression: &str) -> Vec<String> {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    spaced.split_whitespace().map(str::to_owned).collect()
}

/// Alternatives. All of them are read, also behind one that is accepted.
fn any(tokens: &mut Tokens, allowed: &[String]) -> Option<bool> {
    let mut accepted = all(tokens, allowed)?;
    while tokens.next_if(|token| token == "OR").is_some() {
        accepted |= all(tokens, allowed)?;
    }
    Some(accepted)
}

/// Conditions that hold together.
fn all(tokens: &mut Tokens, allowed: &[String]) -> Option<bool> {
    let mut accepted = one(tokens, allowed)?;
    while tokens.next_if(|token| token == "AND").is_some() {
        accepted &= one(tokens, allowed)?;
    }
    Some(accepted)
}

/// A licence, with its exception if it has one, or an expression in parentheses.
fn one(tokens: &mut Tokens, allowed: &[String]) -> Option<bool> {
    let mut licence = tokens.next()?;
    if licence == "(" {
        let accepted = any(tokens, allowed)?;
        return (tokens.next()? == ")").then_some(accepted);
    }
    if tokens.next_if(|token| token == "WITH").is_some() {
        licence = format!("{licence} WITH {}", tokens.next()?);
    }
    Some(allowed.contains(&licence))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepted(expression: &str) -> bool {
        let allowed = ["MIT", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "Unicode-3.0"].map(str::to_owned);
        is_accepted(expression, &allowed)
    }

    #[test]
    fn one_acceptable_alternative_is_enough() {
        assert!(accepted("MIT"));
        assert!(accepted("GPL-3.0-only OR MIT"));
        assert!(accepted("MIT/GPL-2.0"));
        assert!(!accepted("GPL-3.0-only"));
    }

    #[test]
    fn every_condition_has_to_be_acceptable() {
        assert!(accepted("(MIT OR GPL-3.0-only) AND Unicode-3.0"));
        assert!(!accepted("MIT AND GPL-3.0-only"));
        assert!(accepted("MIT AND GPL-3.0-only OR Apache-2.0"));
    }

    #[test]
    fn an_exception_belongs_to_its_licence() {
        assert!(accepted("Apache-2.0 WITH LLVM-exception"));
        assert!(!accepted("MIT WITH LLVM-exception"));
    }

    #[test]
    fn what_cannot_be_read_is_not_accepted() {
        for broken in ["", "MIT MIT", "(MIT", "MIT OR", "MIT)", "OR MIT", "MIT WITH"] {
            assert!(!accepted(broken), "{broken}");
        }
    }
}
