//! Batches of real files as tensors of real libtorch.

use squall_loader::IntoLoader;
use squall_reader::{Shuffle, TransformSpec, make_reader};
use squall_schema::{DType, Field, Shape, Value};
use squall_testkit::{Layout, Table};
use squall_torch::ToDevice;
use tch::{Device, Kind, Tensor};

#[test]
fn batches_are_tensors_with_masks_and_offsets() {
    let table = Table::write(&Layout::default());
    let spec = TransformSpec::per_row(|row| {
        let id = row.int("id")?;
        let score = if id % 5 == 0 {
            Value::Null
        } else {
            Value::Float32(id as f32 / 2.0)
        };
        row.set("score", score);
        row.set("fixed", row.tensor("x")?.clone());
        Ok(())
    })
    .edit(Field::scalar("score", DType::Float32).with_nullable(true))
    .edit(Field::new("fixed", DType::Int8, Shape::fixed(&[3])));
    let reader = make_reader(table.url())
        .shuffle(Shuffle::None)
        .transform(spec)
        .build()
        .expect("a reader");
    let loader = reader
        .into_loader(20)
        .to(Device::Cpu)
        .expect("the CPU")
        .build()
        .expect("a loader");
    let mut rows = 0;
    for batch in loader {
        let batch = batch.expect("a batch");
        let ids = Tensor::arange_start(rows, rows + 20, (Kind::Int, Device::Cpu));
        assert_eq!(batch["id"], ids);
        let valid = ids.remainder(5).not_equal(0);
        assert_eq!(batch.masks["score"], valid);
        let half = ids.to_kind(Kind::Float) / 2.0;
        assert_eq!(batch["score"].where_self(&valid, &half), half);
        assert_eq!(batch["fixed"].size(), [20, 3]);
        let first = ids.remainder(100).unsqueeze(1) + Tensor::arange(3, (Kind::Int, Device::Cpu));
        assert_eq!(batch["fixed"].to_kind(Kind::Int), first);
        assert_eq!(batch["x"], batch["fixed"].reshape([60]));
        assert_eq!(
            batch.offsets["x"],
            Tensor::arange_start_step(0, 61, 3, (Kind::Int64, Device::Cpu))
        );
        assert_eq!(batch.arrays["name"].len(), 20);
        rows += 20;
    }
    assert_eq!(rows, 120);
}

#[test]
fn cuda_is_used_where_it_is_and_refused_where_it_is_not() {
    let table = Table::write(&Layout::default());
    let loader = |device| {
        make_reader(table.url())
            .columns(["id"])
            .build()
            .expect("a reader")
            .into_loader(20)
            .to(device)
    };
    let found = if tch::Cuda::is_available() {
        tch::Cuda::device_count()
    } else {
        0
    };
    let missing = usize::try_from(found).expect("a count");
    let error = loader(Device::Cuda(missing)).err().expect("no such device");
    assert!(
        error
            .to_string()
            .contains(&format!("libtorch finds {found} CUDA devices")),
        "{error}"
    );
    if found == 0 {
        println!("no CUDA device on this machine: the copy to a GPU was not run");
        return;
    }
    let batches = loader(Device::Cuda(0)).expect("cuda:0").build().expect("a loader");
    let mut sum = 0;
    for batch in batches {
        let batch = batch.expect("a batch");
        assert_eq!(batch["id"].device(), Device::Cuda(0));
        sum += batch["id"].sum(Kind::Int64).int64_value(&[]);
    }
    assert_eq!(sum, (0..120).sum::<i64>());
}

/// libtorch_cuda is linked where the installed libtorch has it: nothing but the linker would tell.
#[test]
fn cuda_is_not_left_out_by_the_linker() {
    let torch = std::env::var_os("VIRTUAL_ENV").map(std::path::PathBuf::from);
    let maps = std::fs::read_to_string("/proc/self/maps").expect("Linux");
    let lib = maps.lines().find_map(|line| {
        line.split_whitespace()
            .last()
            .filter(|path| path.ends_with("libtorch_cpu.so"))
    });
    let lib = std::path::Path::new(lib.expect("libtorch is mapped")).with_file_name("libtorch_cuda.so");
    assert_eq!(
        lib.exists(),
        maps.contains("libtorch_cuda.so"),
        "{} of {torch:?}",
        lib.display()
    );
}
