//! The names of rooms.

use crate::key::text::checked_text;

const MAX_LEN: usize = 64;

checked_text!(
    /// Names a room, that is, one fleet's keys: 1 to 64 of `a-z 0-9 -`.
    RoomName,
    |text| (1..=MAX_LEN).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'),
    "a room's name has 1 to 64 of a-z, 0-9 and '-'"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn room_names() {
        for good in ["a", "chat-eu", "0-9", &"x".repeat(64)] {
            assert_eq!(RoomName::new(good).unwrap().as_str(), good);
        }
        for bad in ["", "Chat", "chat_eu", "chat eu", "é", "a/b", "a.b", "a\0", &"x".repeat(65)] {
            assert!(RoomName::new(bad).is_err(), "{bad}");
        }
    }
}
