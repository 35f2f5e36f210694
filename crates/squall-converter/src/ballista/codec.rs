//! Our nodes as bytes, and those of Ballista.

use std::sync::Arc;

use ballista_core::serde::BallistaPhysicalExtensionCodec;
use datafusion::common::{DataFusionError, Result};
use datafusion::execution::TaskContext;
use datafusion::physical_plan::ExecutionPlan;
use datafusion_proto::physical_plan::{PhysicalExtensionCodec, PhysicalProtoConverterExtension};

use super::node::UnitExec;
use crate::records::remote::RecordExec;

/// What our nodes begin with: no message of protobuf begins with a zero.
const UNITS: &[u8] = b"\0squall-units";
const RECORDS: &[u8] = b"\0squall-records";

#[derive(Debug, Default)]
pub(crate) struct Codec {
    ballista: BallistaPhysicalExtensionCodec,
}

impl PhysicalExtensionCodec for Codec {
    fn try_decode(
        &self,
        bytes: &[u8],
        inputs: &[Arc<dyn ExecutionPlan>],
        context: &TaskContext,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let external = |error: serde_json::Error| DataFusionError::External(error.into());
        let input = || match inputs {
            [input] => Ok(input.clone()),
            _ => Err(DataFusionError::Internal("a node of Squall has one input".to_owned())),
        };
        if let Some(work) = bytes.strip_prefix(UNITS) {
            let work = serde_json::from_slice(work).map_err(external)?;
            return Ok(Arc::new(UnitExec::new(Arc::new(work), input()?)));
        }
        if let Some(reading) = bytes.strip_prefix(RECORDS) {
            let reading = serde_json::from_slice(reading).map_err(external)?;
            return Ok(Arc::new(RecordExec::new(Arc::new(reading), input()?)?));
        }
        self.ballista.try_decode(bytes, inputs, context, converter)
    }

    fn try_encode(
        &self,
        node: Arc<dyn ExecutionPlan>,
        bytes: &mut Vec<u8>,
        converter: &dyn PhysicalProtoConverterExtension,
    ) -> Result<()> {
        let written = if let Some(units) = node.downcast_ref::<UnitExec>() {
            bytes.extend_from_slice(UNITS);
            serde_json::to_writer(bytes, &*units.work)
        } else if let Some(records) = node.downcast_ref::<RecordExec>() {
            bytes.extend_from_slice(RECORDS);
            serde_json::to_writer(bytes, &*records.reading)
        } else {
            return self.ballista.try_encode(node, bytes, converter);
        };
        written.map_err(|error| DataFusionError::External(error.into()))
    }
}
