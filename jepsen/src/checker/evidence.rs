//! What shows that a history is wrong, small enough to be read.

use std::fmt;

/// Lines shown of a list at most.
pub(crate) const SHOWN_MAX: usize = 12;

/// Why there is no explanation. The text is for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// What is wrong, in one line.
    pub summary: String,
    /// Operations of the longest explanation that are left out before `prefix`.
    pub earlier: usize,
    /// The end of the longest explanation, in its order.
    pub prefix: Vec<String>,
    /// What the object holds then.
    pub state: String,
    /// What must, or may, come next, and cannot.
    pub stuck: Vec<String>,
    /// Operations left out after `stuck`.
    pub more: usize,
}

impl Evidence {
    /// One line is all there is to say.
    #[must_use]
    pub fn of(summary: impl Into<String>) -> Self {
        Self { summary: summary.into(), ..Self::default() }
    }

    /// What is wrong, and the operations that show it.
    #[must_use]
    pub fn with(summary: impl Into<String>, mut stuck: Vec<String>) -> Self {
        let more = stuck.len().saturating_sub(SHOWN_MAX);
        stuck.truncate(SHOWN_MAX);
        Self { summary: summary.into(), stuck, more, ..Self::default() }
    }
}

impl fmt::Display for Evidence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.summary)?;
        if !self.prefix.is_empty() {
            write!(f, "\n  the longest explanation ends with")?;
            if self.earlier > 0 {
                write!(f, " (after {} more)", self.earlier)?;
            }
            for line in &self.prefix {
                write!(f, "\n    {line}")?;
            }
        }
        if !self.state.is_empty() {
            write!(f, "\n  then it holds {}", self.state)?;
        }
        if !self.stuck.is_empty() {
            write!(f, "\n  which does not go with")?;
            for line in &self.stuck {
                write!(f, "\n    {line}")?;
            }
        }
        if self.more > 0 {
            write!(f, "\n    and {} more", self.more)?;
        }
        Ok(())
    }
}
