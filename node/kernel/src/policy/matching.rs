//! Which pattern applies to a path. Only the one of highest priority counts, whatever the others grant.
//!
//! An exact path beats every pattern. Among patterns the one whose first wildcard comes later wins; then one without
//! a last `*`; then one with fewer `+`; then the longer; then the one that sorts later. The text before the first
//! wildcard (the *head*) is literal, and its length is the first criterion, so patterns hang off their heads: the
//! heads that begin a path form a chain from long to short, and the first pattern that matches along it is the answer.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};

/// A pattern as written (after templates): its text, and whether a last `*` was taken off.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pattern {
    /// Without the last `*`.
    pub text: String,
    /// Whether any rest may follow.
    pub is_prefix: bool,
    /// Whether a `+` stands for a segment somewhere.
    pub has_segments: bool,
}

impl Pattern {
    /// Reads a pattern. A `*` anywhere but at the end, and a `+` that is not a whole segment, are literal.
    #[must_use]
    pub fn parse(written: &str) -> Self {
        let (text, is_prefix) = written.strip_suffix('*').map_or((written, false), |text| (text, true));
        let has_segments = text == "+" || text.contains("/+") || text.starts_with("+/");
        Self { text: text.to_owned(), is_prefix, has_segments }
    }

    /// Whether only one path matches.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        !self.is_prefix && !self.has_segments
    }

    fn wildcards(&self) -> usize {
        if self.has_segments { self.text.split('/').filter(|segment| *segment == "+").count() } else { 0 }
    }

    /// Length of the head.
    fn first_wildcard(&self) -> usize {
        let plus = if self.has_segments { self.text.find('+') } else { None };
        plus.unwrap_or(self.text.len())
    }

    /// Segments from the one that holds the first wildcard, with their place; none without a `+`.
    fn tail(&self) -> Tail {
        if !self.has_segments {
            return Tail::default();
        }
        let skipped = self.text.get(..self.first_wildcard()).unwrap_or_default().matches('/').count();
        Tail { skipped, segments: self.text.split('/').skip(skipped).map(str::to_owned).collect() }
    }
}

/// A pattern's segments behind its head, cut once: looking through hundreds of patterns costs little each.
#[derive(Clone, Debug, Default)]
struct Tail {
    skipped: usize,
    segments: Vec<String>,
}

impl Tail {
    /// Whether a path cut into `path` matches; its head is known to.
    fn matches(&self, is_prefix: bool, path: &[&str]) -> bool {
        let Some(path) = path.get(self.skipped..) else { return false };
        let fits_in_length =
            if is_prefix { path.len() >= self.segments.len() } else { path.len() == self.segments.len() };
        let last = self.segments.len().saturating_sub(1);
        fits_in_length
            && self.segments.iter().zip(path).enumerate().all(|(at, (want, have))| {
                want == "+" || want == have || (is_prefix && at == last && have.starts_with(want.as_str()))
            })
    }
}

/// Among patterns of one head; the first in this order wins.
type Priority = (bool, usize, Reverse<usize>, Reverse<String>);

fn priority(pattern: &Pattern) -> Priority {
    (pattern.is_prefix, pattern.wildcards(), Reverse(pattern.text.len()), Reverse(pattern.text.clone()))
}

#[derive(Clone, Debug)]
struct Entry<T> {
    pattern: Pattern,
    tail: Tail,
    value: T,
}

#[derive(Clone, Debug)]
struct Head<T> {
    text: String,
    /// The longest other head that begins this one.
    parent: Option<usize>,
    /// Highest priority first.
    patterns: Vec<Entry<T>>,
}

/// How strongly a pattern matched: comparable between the two forms of a listed path.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Strength(usize, Reverse<Priority>);

/// Values by pattern.
#[derive(Clone, Debug)]
pub struct Patterns<T> {
    /// Seeded by chance, for whoever writes policies chooses the keys. Its order shows nowhere: it is asked, or gone
    /// through for whether there is one, or into a sorted map.
    exact: HashMap<String, T>,
    /// Sorted by text.
    heads: Vec<Head<T>>,
}

impl<T> Patterns<T> {
    /// Builds the lookup; patterns are unique already.
    #[must_use]
    pub fn new(rules: impl IntoIterator<Item = (Pattern, T)>) -> Self {
        let mut exact = HashMap::new();
        let mut by_head: BTreeMap<String, Vec<Entry<T>>> = BTreeMap::new();
        for (pattern, value) in rules {
            if pattern.is_exact() {
                exact.insert(pattern.text, value);
            } else {
                let head = pattern.text.get(..pattern.first_wildcard()).unwrap_or_default().to_owned();
                by_head.entry(head).or_default().push(Entry { tail: pattern.tail(), pattern, value });
            }
        }
        let mut heads: Vec<Head<T>> = Vec::with_capacity(by_head.len());
        for (text, mut patterns) in by_head {
            patterns.sort_by_cached_key(|entry| priority(&entry.pattern));
            let mut parent = heads.len().checked_sub(1);
            while let Some(other) = parent.and_then(|at| heads.get(at)) {
                if text.starts_with(&other.text) {
                    break;
                }
                parent = other.parent;
            }
            heads.push(Head { text, parent, patterns });
        }
        Self { exact, heads }
    }

    /// The value of exactly this path.
    #[must_use]
    pub fn exact(&self, path: &str) -> Option<&T> {
        self.exact.get(path)
    }

    /// The value of the pattern of highest priority.
    #[must_use]
    pub fn best(&self, path: &str) -> Option<&T> {
        self.best_entry(path).map(|(_, entry)| &entry.value)
    }

    /// As [`Self::best`], with how strongly it matched.
    pub(crate) fn best_with_strength(&self, path: &str) -> Option<(Strength, &T)> {
        let (head, entry) = self.best_entry(path)?;
        Some((Strength(head.text.len(), Reverse(priority(&entry.pattern))), &entry.value))
    }

    fn best_entry(&self, path: &str) -> Option<(&Head<T>, &Entry<T>)> {
        let mut segments = Vec::new();
        // Everything that sorts between a head and a path it begins begins with that head too, so the chain of
        // parents from the last head not after the path passes through every head that begins the path.
        let mut at = self.heads.partition_point(|head| head.text.as_str() <= path).checked_sub(1);
        while let Some(head) = at.and_then(|at| self.heads.get(at)) {
            if path.starts_with(&head.text) {
                let found = head.patterns.iter().find(|entry| {
                    if !entry.pattern.has_segments {
                        return true; // A prefix, and the head is all of it.
                    }
                    if segments.is_empty() {
                        segments.extend(path.split('/'));
                    }
                    entry.tail.matches(entry.pattern.is_prefix, &segments)
                });
                if let Some(entry) = found {
                    return Some((head, entry));
                }
            }
            at = head.parent;
        }
        None
    }

    /// Exact paths and patterns with their values.
    pub fn iter(&self) -> impl Iterator<Item = (&str, bool, &T)> {
        let exact = self.exact.iter().map(|(path, value)| (path.as_str(), true, value));
        let patterns = self.heads.iter().flat_map(|head| &head.patterns);
        exact.chain(patterns.map(|entry| (entry.pattern.text.as_str(), false, &entry.value)))
    }

    /// Whether some pattern could match a path below `folder` (ending in `/`) and passes `test`.
    pub fn any_below(&self, folder: &str, mut test: impl FnMut(&T) -> bool) -> bool {
        let below_exact = self.exact.iter().any(|(path, value)| path.starts_with(folder) && test(value));
        below_exact
            || self
                .heads
                .iter()
                .flat_map(|head| &head.patterns)
                .any(|entry| entry.pattern.reaches(folder) && test(&entry.value))
    }
}

impl Pattern {
    /// Whether it can match some path that begins with `folder`.
    fn reaches(&self, folder: &str) -> bool {
        let mut wanted = self.text.split('/').peekable();
        for segment in folder.split_terminator('/') {
            let Some(want) = wanted.next() else { return false };
            if wanted.peek().is_none() && self.is_prefix && segment.starts_with(want) {
                return true;
            }
            if want != segment && !(self.has_segments && want == "+") {
                return false;
            }
        }
        wanted.peek().is_some()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The rules of the header applied to every pattern one after the other.
    pub(crate) fn slow_best<'a>(patterns: &'a [Pattern], path: &str) -> Option<&'a Pattern> {
        let mut matching: Vec<_> =
            patterns.iter().filter(|one| !one.is_exact() && slow_matches(one, path)).collect();
        matching.sort_by(|left, right| {
            (left.first_wildcard().cmp(&right.first_wildcard()))
                .then_with(|| right.is_prefix.cmp(&left.is_prefix))
                .then_with(|| right.wildcards().cmp(&left.wildcards()))
                .then_with(|| left.text.len().cmp(&right.text.len()))
                .then_with(|| left.text.cmp(&right.text))
        });
        matching.pop()
    }

    fn slow_matches(pattern: &Pattern, path: &str) -> bool {
        if !pattern.has_segments {
            return path.starts_with(&pattern.text);
        }
        let wanted: Vec<_> = pattern.text.split('/').collect();
        let given: Vec<_> = path.split('/').collect();
        let fits_in_length =
            if pattern.is_prefix { given.len() >= wanted.len() } else { given.len() == wanted.len() };
        fits_in_length
            && wanted.iter().zip(&given).enumerate().all(|(at, (want, have))| {
                *want == "+"
                    || want == have
                    || (pattern.is_prefix && at == wanted.len() - 1 && have.starts_with(want))
            })
    }

    #[track_caller]
    fn check(written: &[&str], path: &str, want: &str) {
        let patterns = Patterns::new(written.iter().map(|text| (Pattern::parse(text), (*text).to_owned())));
        assert_eq!(
            patterns.best(path).map_or("none", String::as_str),
            want,
            "patterns {written:?} path {path:?}"
        );
    }

    #[test]
    fn the_later_first_wildcard_wins() {
        check(&["a/*", "a/b/*"], "a/b/c", "a/b/*");
        check(&["a/*", "a/b*"], "a/bc", "a/b*");
        check(&["a/b*", "a/+/c"], "a/b/c", "a/b*");
        check(&["*", "a/*"], "b", "*");
    }

    #[test]
    fn a_last_star_loses() {
        check(&["a/+/b*", "a/+/bc"], "a/x/bc", "a/+/bc");
        check(&["a/*", "a/+"], "a/b", "a/+");
        check(&["a/*", "a/+"], "a/b/c", "a/*");
    }

    #[test]
    fn more_plusses_lose() {
        check(&["a/+/+/*", "a/+/b/*"], "a/x/b/c", "a/+/b/*");
        check(&["a/+/+", "a/+/b"], "a/x/b", "a/+/b");
        check(&["a/*", "a/+/*"], "a/x/b", "a/*");
    }

    #[test]
    fn the_shorter_loses() {
        check(&["a/+/b*", "a/+/bc*"], "a/x/bcd", "a/+/bc*");
    }

    #[test]
    fn the_smaller_loses() {
        check(&["a/+/b/+", "a/+/+/c"], "a/x/b/c", "a/+/b/+");
    }

    #[test]
    fn stars_and_plusses_elsewhere_are_literal() {
        check(&["a/*/b*"], "a/x/b", "none");
        check(&["a/*/b*"], "a/*/bc", "a/*/b*");
        check(&["a/+b*"], "a/xb", "none");
        check(&["+"], "a", "+");
    }

    #[test]
    fn segments_count() {
        check(&["+/a"], "x/a", "+/a");
        check(&["+/a"], "x/y/a", "none");
        check(&["a/+/*"], "a/b", "none");
        check(&["a/+"], "a/", "a/+");
        check(&["a/+/"], "a/b/", "a/+/");
    }

    #[test]
    fn a_folder_is_seen_through_any_pattern_below_it() {
        let sees = |written: &str, folder: &str| {
            Patterns::new([(Pattern::parse(written), ())]).any_below(folder, |()| true)
        };
        for written in ["m/x", "m/", "m/*", "*", "m*", "+/x", "m/+/y", "+/+", "m/a/b*"] {
            assert!(sees(written, "m/"), "{written}");
        }
        for written in ["n/x", "m", "mm/*", "+/", "mn*"] {
            assert!(written == "+/" || !sees(written, "m/"), "{written}");
        }
        assert!(sees("a/+/x", "a/b/") && !sees("a/+", "a/b/"));
    }

    pub(crate) fn pattern_text() -> impl Strategy<Value = String> {
        let segment = prop::sample::select(vec!["a", "b", "ab", "m", "+", "a+"]);
        let ending = prop::sample::select(vec!["", "", "/", "/*", "*"]);
        (prop::collection::vec(segment, 1..4), ending)
            .prop_map(|(segments, ending)| format!("{}{ending}", segments.join("/")))
            .prop_filter("illegal", |text| !text.contains("+*"))
    }

    pub(crate) fn path_text() -> impl Strategy<Value = String> {
        let segment = prop::sample::select(vec!["a", "b", "ab", "m", "abc", "a+"]);
        (prop::collection::vec(segment, 1..5), prop::sample::select(vec!["", "/"]))
            .prop_map(|(segments, ending)| format!("{}{ending}", segments.join("/")))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn agrees_with_the_slow_matcher(
            written in prop::collection::btree_set(pattern_text(), 0..12),
            path in path_text(),
        ) {
            let parsed: Vec<_> = written.iter().map(|text| Pattern::parse(text)).collect();
            let patterns = Patterns::new(parsed.iter().cloned().map(|pattern| (pattern.clone(), pattern)));
            prop_assert_eq!(patterns.best(&path), slow_best(&parsed, &path));
            let exact = parsed.iter().find(|one| one.is_exact() && one.text == path);
            prop_assert_eq!(patterns.exact(&path), exact);
        }
    }
}
