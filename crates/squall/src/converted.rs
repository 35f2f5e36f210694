//! A dataset that was converted, and the readers and loaders of it.

use squall_converter::Converted;
use squall_loader::{Host, IntoLoader, LoaderBuilder};
use squall_reader::{BatchReader, Reader, ReaderBuilder, make_batch_reader, make_reader};
use squall_schema::Result;

/// From a conversion straight to training, as with Petastorm's converters.
///
/// ```
/// use squall::convert::{Converter, IntoReader, session};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let runtime = tokio::runtime::Runtime::new()?;
/// let train = runtime.block_on(async {
///     let rows = session().sql("SELECT column1 AS id FROM (VALUES (1), (2), (3), (4))").await?;
///     Ok::<_, Box<dyn std::error::Error>>(Converter::new("memory://cache/of-readers").cached().convert(rows).await?)
/// })?;
/// assert_eq!((train.len(), train.reader().build()?.count()), (4, 4));
/// let loader = train.loader(2, |reader| reader.rank(0, 1).epochs(3))?.build()?;
/// assert_eq!(loader.count(), 6);
/// # Ok(())
/// # }
/// ```
pub trait IntoReader {
    /// A reader of its rows, over the store that it was written to.
    fn reader(&self) -> ReaderBuilder<Reader>;

    /// A reader of its rows as Arrow batches.
    fn batch_reader(&self) -> ReaderBuilder<BatchReader>;

    /// A loader of `batch_size` rows a batch on each rank, over a reader with the options that `configure` adds.
    fn loader(
        &self,
        batch_size: u64,
        configure: impl FnOnce(ReaderBuilder<Reader>) -> ReaderBuilder<Reader>,
    ) -> Result<LoaderBuilder<Host>>;
}

impl IntoReader for Converted {
    fn reader(&self) -> ReaderBuilder<Reader> {
        make_reader(self.url()).store(self.store_options().clone())
    }

    fn batch_reader(&self) -> ReaderBuilder<BatchReader> {
        make_batch_reader(self.url()).store(self.store_options().clone())
    }

    fn loader(
        &self,
        batch_size: u64,
        configure: impl FnOnce(ReaderBuilder<Reader>) -> ReaderBuilder<Reader>,
    ) -> Result<LoaderBuilder<Host>> {
        Ok(configure(self.reader()).build()?.into_loader(batch_size))
    }
}
