//! Text of 78 columns that survives a mail.
//!
//! Decides where lines break. The main type is [`Page`].

/// The widest line.
pub const WIDTH: usize = 78;

/// Text that is put together line by line.
#[derive(Debug, Default)]
pub struct Page {
    text: String,
}

impl Page {
    /// The finished text.
    pub fn finish(self) -> String {
        self.text
    }

    /// A blank line, unless one stands there.
    pub fn gap(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    /// One line as it is, without what terminals would act on.
    pub fn line(&mut self, line: &str) {
        self.text.extend(line.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }));
        while self.text.ends_with(' ') {
            self.text.pop();
        }
        self.text.push('\n');
    }

    /// Words behind `first`, further lines behind blanks of the same width. A word that is too long
    /// for a line stands alone on it.
    pub fn wrapped(&mut self, first: &str, words: &str) {
        let indent = " ".repeat(first.chars().count());
        let mut line = first.to_owned();
        let mut empty = true;
        for word in words.split_whitespace() {
            if !empty && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(&line);
                line.clone_from(&indent);
                empty = true;
            }
            if !empty {
                line.push(' ');
            }
            line.push_str(word);
            empty = false;
        }
        self.line(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_keep_to_the_width() {
        let mut page = Page::default();
        page.wrapped("  for      ", &"some words that go on ".repeat(12));
        page.wrapped("  ", &"x".repeat(200));
        let text = page.finish();
        let (long, short): (Vec<&str>, Vec<&str>) =
            text.lines().partition(|l| l.chars().count() > WIDTH);
        assert_eq!(long.len(), 1, "only the word that cannot be broken");
        assert!(short.iter().skip(1).take(3).all(|l| l.starts_with("           ")), "{text}");
    }
}
