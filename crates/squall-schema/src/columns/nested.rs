//! Nested columns of one type in another: files of one data set may have other members, and narrower ones.

use std::sync::Arc;

use arrow_array::cast::AsArray;
use arrow_array::{Array, ArrayRef, FixedSizeListArray, ListArray, MapArray, StructArray, new_null_array};
use arrow_schema::{DataType, Fields};

use super::normalise::{cast, mismatch};
use crate::{Error, Result};

/// The column in the type `to`: members of structs are found by their names, and are null where the column has none; all
/// else is cast.
pub(super) fn conform(column: &ArrayRef, to: &DataType) -> Result<ArrayRef> {
    match (column.data_type(), to) {
        (own, to) if own == to => Ok(column.clone()),
        (DataType::Struct(_), DataType::Struct(members)) => {
            let column = column.as_struct();
            let member = |member: &Arc<arrow_schema::Field>| match column.column_by_name(member.name()) {
                Some(own) => conform(own, member.data_type()),
                None if member.is_nullable() => Ok(new_null_array(member.data_type(), column.len())),
                None => Err(Error::corrupt(format!(
                    "a struct without its member {:?}",
                    member.name()
                ))),
            };
            let columns = members.iter().map(member).collect::<Result<_>>()?;
            struct_array(members, columns, column)
        }
        (DataType::LargeList(item), DataType::List(_)) => conform(&cast(column, &DataType::List(item.clone()))?, to),
        (DataType::List(_), DataType::List(item)) => {
            let list = column.as_list::<i32>();
            let values = conform(list.values(), item.data_type())?;
            let list = ListArray::try_new(item.clone(), list.offsets().clone(), values, list.nulls().cloned());
            Ok(Arc::new(list.map_err(mismatch)?))
        }
        (DataType::FixedSizeList(_, n), DataType::FixedSizeList(item, m)) if n == m => {
            let list = column.as_fixed_size_list();
            let values = conform(list.values(), item.data_type())?;
            let nulls = list.nulls().cloned();
            let list = FixedSizeListArray::try_new_with_length(item.clone(), *n, values, nulls, list.len());
            Ok(Arc::new(list.map_err(mismatch)?))
        }
        (DataType::Map(..), DataType::Map(entries, sorted)) => {
            let map = column.as_map();
            let DataType::Struct(members) = entries.data_type() else {
                return Err(Error::internal("the entries of a map are no structs"));
            };
            // Key and value stand in their places, whatever a writer calls them.
            let columns = map.entries().columns().iter().zip(members);
            let columns = columns.map(|(own, member)| conform(own, member.data_type()));
            let own = map.entries();
            let pairs = StructArray::try_new_with_length(
                members.clone(),
                columns.collect::<Result<_>>()?,
                own.nulls().cloned(),
                own.len(),
            );
            let map = MapArray::try_new(
                entries.clone(),
                map.offsets().clone(),
                pairs.map_err(mismatch)?,
                map.nulls().cloned(),
                *sorted,
            );
            Ok(Arc::new(map.map_err(mismatch)?))
        }
        (_, to) => cast(column, to),
    }
}

fn struct_array(members: &Fields, columns: Vec<ArrayRef>, like: &StructArray) -> Result<ArrayRef> {
    let array = StructArray::try_new_with_length(members.clone(), columns, like.nulls().cloned(), like.len());
    Ok(Arc::new(array.map_err(mismatch)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow_array::ArrowPrimitiveType;
    use arrow_array::types::{Int32Type, Int64Type};
    use arrow_array::{Int32Array, Int64Array};
    use arrow_buffer::{NullBuffer, OffsetBuffer};
    use arrow_schema::Field;

    fn member(name: &str, data_type: DataType) -> Arc<Field> {
        Arc::new(Field::new(name, data_type, true))
    }

    #[test]
    fn members_are_found_by_name_and_cast_at_every_depth() {
        let ids: ArrayRef = Arc::new(Int32Array::from(vec![Some(1), None, Some(3)]));
        let inner = StructArray::from(vec![(member("x", DataType::Int32), ids.clone())]);
        let offsets = OffsetBuffer::<i32>::from_lengths([1, 0, 2]);
        let item = member("item", inner.data_type().clone());
        let list: ArrayRef = Arc::new(ListArray::new(item, offsets.clone(), Arc::new(inner), None));
        let entry = StructArray::from(vec![
            (
                Arc::new(Field::new("k", DataType::Int32, false)),
                Arc::new(Int32Array::from(vec![7, 8, 9])) as ArrayRef,
            ),
            (member("v", DataType::Int32), ids.clone()),
        ]);
        let entries = Arc::new(Field::new("e", entry.data_type().clone(), false));
        let map: ArrayRef = Arc::new(MapArray::new(entries, offsets, entry, None, false));
        let nulls = NullBuffer::from(vec![true, true, false]);
        let fields = vec![
            member("ids", DataType::Int32),
            member("list", list.data_type().clone()),
            member("map", map.data_type().clone()),
        ];
        let column: ArrayRef = Arc::new(StructArray::new(fields.into(), vec![ids, list, map], Some(nulls)));

        let wide = DataType::Struct(vec![member("y", DataType::Utf8), member("x", DataType::Int64)].into());
        let pair = vec![
            Field::new("key", DataType::Int64, false),
            Field::new("value", DataType::Int64, true),
        ];
        let entries = Arc::new(Field::new("key_value", DataType::Struct(pair.into()), false));
        let to = DataType::Struct(
            vec![
                member("list", DataType::List(member("element", wide))),
                member("more", DataType::Date32),
                member("map", DataType::Map(entries, false)),
                member("ids", DataType::Int64),
            ]
            .into(),
        );
        let conformed = conform(&column, &to).expect("a column of the other type");
        assert_eq!(conformed.data_type(), &to);
        let conformed = conformed.as_struct();
        assert!(conformed.is_null(2) && conformed.is_valid(1));
        let ids = conformed.column(3).as_primitive::<Int64Type>();
        assert_eq!(ids, &Int64Array::from(vec![Some(1), None, Some(3)]));
        assert_eq!(conformed.column(1).null_count(), 3);
        let items = conformed.column(0).as_list::<i32>().value(2);
        assert_eq!(items.as_struct().column(0).null_count(), 2);
        assert_eq!(items.as_struct().column(1).as_primitive::<Int64Type>().value(1), 3);
        assert_eq!(
            conformed.column(2).as_map().keys().as_primitive::<Int64Type>().value(2),
            9
        );

        let strict = DataType::Struct(vec![Field::new("none", DataType::Int32, false)].into());
        assert!(conform(&column, &strict).is_err());
        let narrow: ArrayRef = Arc::new(Int64Array::from(vec![1 << 40]));
        assert!(conform(&narrow, &Int32Type::DATA_TYPE).is_err());
    }
}
