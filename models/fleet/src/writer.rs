//! Writes settings down.

use mainstay_resilience::Invalid;

use crate::form::Form;
use crate::value::{Setting, Value};

/// Collects settings in their order.
#[derive(Debug, Default)]
pub(crate) struct Writer {
    pub(crate) settings: Vec<(&'static str, Value)>,
}

impl Form for Writer {
    fn setting<T: Setting>(&mut self, key: &'static str, value: &mut T) {
        if let Some(value) = value.value() {
            self.settings.push((key, value));
        }
    }

    fn required<T: Setting>(&mut self, key: &'static str, value: &mut T) {
        self.setting(key, value);
    }

    fn section<T: Copy>(
        &mut self,
        key: &'static str,
        value: &mut Option<T>,
        _: T,
        settings: impl FnOnce(&mut Self, &mut T),
        _: impl FnOnce(T) -> Result<(), Invalid>,
    ) {
        if let Some(value) = value {
            let mut section = Writer::default();
            settings(&mut section, value);
            self.settings.push((key, Value::Table(section.settings)));
        }
    }

    fn then(&mut self, _: impl FnOnce()) {}

    fn meaningless(&mut self, _: &[&'static str], _: &'static str) {}

    fn refuse(&mut self, _: &'static str, _: String) {}
}
