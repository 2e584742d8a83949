//! What may not be shown: passwords in URLs, wherever a text quotes one.

/// The text with `***` in place of each password: what lies between a colon and an `@` behind `://`, and the value of a
/// parameter `password`. A URL ends at a blank or a quotation mark; what can't be told apart is hidden too.
pub(crate) fn without_passwords(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find("://") {
        let (before, url) = rest.split_at(at + 3);
        shown.push_str(before);
        let end = url.find(|c: char| c.is_whitespace() || matches!(c, '\'' | '"' | '`')).unwrap_or(url.len());
        shown.push_str(&in_url(&url[..end]));
        rest = &url[end..];
    }
    shown.push_str(rest);
    shown
}

fn in_url(url: &str) -> String {
    let (user, behind) = match url.rfind('@') {
        Some(at) => url.split_at(at),
        None => ("", url),
    };
    let user = match user.split_once(':') {
        // As an error's hint writes it.
        Some(("user", "password")) => user.to_owned(),
        Some((name, _)) => format!("{name}:***"),
        None => user.to_owned(),
    };
    let mut shown = user;
    let mut rest = behind;
    while let Some(at) = rest.find("password=") {
        let (before, value) = rest.split_at(at + "password=".len());
        shown.push_str(before);
        shown.push_str("***");
        rest = &value[value.find('&').unwrap_or(value.len())..];
    }
    shown.push_str(rest);
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_password_of_a_url_is_shown() {
        for (text, shown) in [
            ("nothing of it: a@b", "nothing of it: a@b"),
            ("postgres://u:secret@h:1/db?x=y", "postgres://u:***@h:1/db?x=y"),
            ("'postgres://u:secret@h' and \"pg://v:secret@i\"", "'postgres://u:***@h' and \"pg://v:***@i\""),
            ("postgres://u:sec:re@t/@h/db", "postgres://u:***@h/db"),
            ("postgres://u@h/db?user=u&password=secret&x=1", "postgres://u@h/db?user=u&password=***&x=1"),
            ("http://127.0.0.1:7101/orders", "http://127.0.0.1:7101/orders"),
            ("postgres://u:secret@", "postgres://u:***@"),
            ("give postgres://user:password@host:port/db", "give postgres://user:password@host:port/db"),
        ] {
            assert_eq!(without_passwords(text), shown);
        }
    }
}
