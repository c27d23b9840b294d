//! Marks in one process's memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;

use crate::error::Result;
use crate::watermark::{Mark, Subject, Watermark};

/// A [`Watermark`] that ends with its process: for tests, and for rooms whose key store does too. Clones share the marks.
#[derive(Clone, Debug, Default)]
pub struct MemoryWatermark(Arc<Mutex<BTreeMap<Subject, Mark>>>);

#[async_trait]
impl Watermark for MemoryWatermark {
    async fn read(&self, subject: &Subject) -> Result<Option<Mark>> {
        Ok(self.0.lock().unwrap_or_else(PoisonError::into_inner).get(subject).copied())
    }

    async fn advance(&self, subject: &Subject, from: Option<&Mark>, to: &Mark) -> Result<bool> {
        let mut marks = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let present = marks.get(subject);
        if present != from && present != Some(to) {
            return Ok(false);
        }
        marks.insert(subject.clone(), *to);
        Ok(true)
    }
}
