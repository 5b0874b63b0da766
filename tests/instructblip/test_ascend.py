"""Errors of CANN and torch-npu in plain words, and versions that fit together."""

import pytest

from instructblip.ascend import FAULTS, cann_rows, explain, row_for, torch_of

# As torch-npu and the loader word them.
SEEN = {
    "libhccl.so: cannot open shared object file: No such file or directory": "launch.sh env",
    "libascend_hal.so: cannot open shared object file": "/usr/local/Ascend/driver",
    "ImportError: libatb.so: cannot open shared object file": "Ascend-cann-nnal",
    "NPU function error: aclrtSetDevice, error code is 107001": "--device npu:0",
    "SetDevice error code is 107002\n[Error]: The context is empty.": "report it",
    "call aclrtSetDevice failed, error code is 207004": "ASCEND_RT_VISIBLE_DEVICES",
    "Initialize:.. error code is 507008": "/dev/davinci_manager",
    "NPU function error: c10_npu::SetDevice(device_id_), error code is 507033": "ASCEND_OPP_PATH",
    "NPU out of memory. Tried to allocate 2.00 GiB": "npu-smi info",
    "aclrtMalloc failed, error code is 207001": "no memory left",
    "aclnnMatmul or aclnnMatmulGetWorkspaceSize not in libopapi.so, or libopapi.so not found.": "Upgrade CANN",
    "CAUTION: The operator 'aten::x' is not currently supported on the NPU backend and will "
    "fall back to run on the CPU.": "ran on the CPU",
    "The Inner error. error code is 507014": "ran too long",
    "error code is 507015": "AI core",
    "error code is 507018": "AI CPU",
    "SetPrecisionMode failed": "requirements-npu.txt",
}  # fmt: skip


@pytest.mark.parametrize("message", SEEN)
def test_a_message_is_explained(message: str) -> None:
    fault = explain(RuntimeError(message))
    assert fault is not None
    assert SEEN[message] in str(fault)


def test_every_fault_of_the_table_is_seen() -> None:
    assert {explain(message) for message in SEEN} == set(FAULTS)


def test_only_memory_is_memory() -> None:
    for message in SEEN:
        fault = explain(message)
        assert fault is not None
        assert fault.memory is ("memory" in message or "207001" in message)


@pytest.mark.parametrize("message", ["", "1070011", "x2070042", "index 5 is out of range"])
def test_other_errors_stay_themselves(message: str) -> None:
    assert explain(message) is None


def test_each_says_what_happened_and_what_to_do() -> None:
    for fault in FAULTS:
        assert fault.what.endswith(".")
        assert fault.cure.endswith(".")


@pytest.mark.parametrize("row", cann_rows(), ids=lambda row: row.cann)
def test_a_listed_cann_is_its_own_row(row: object) -> None:
    assert row_for(row.cann) is row  # type: ignore[attr-defined]


@pytest.mark.parametrize("version", ["8.2.RC1", "7.0", "", "latest"])
def test_what_is_too_old_or_no_version_has_no_row(version: str) -> None:
    assert row_for(version) is None


def test_torchs_version_is_torch_npus_without_its_post() -> None:
    assert [torch_of(v) for v in ("2.9.0.post2", "2.10.0", "2.7.1.post8")] == [
        "2.9.0", "2.10.0", "2.7.1",
    ]  # fmt: skip
