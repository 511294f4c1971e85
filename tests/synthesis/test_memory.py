"""Whether a picture fits into memory, and the tile that does."""

import pytest
from support.style import LAYERS, STYLE

from kzoo.errors import KzooError
from kzoo.synthesis.memory import check_memory, needed_memory
from kzoo.synthesis.network import catalog_model, cut_network
from kzoo.synthesis.objective import CompiledNetwork


def test_memory_is_refused_with_the_tile_that_fits():
    net = cut_network(catalog_model("vgg11", "random"), picture=STYLE, **LAYERS)
    size = (3000, 4000)
    need = needed_memory(net, size, None, "float32")
    check_memory(CompiledNetwork(net), size, "float32", free=need)
    with pytest.raises(KzooError, match=r"4000x3000 pixels need about .* GB .*: --tile (\d+)") as e:
        check_memory(CompiledNetwork(net), size, "float32", free=need // 2)
    tile = int(str(e.value).split()[-1].strip("."))
    check_memory(CompiledNetwork(net, tile), size, "float32", free=need // 2)
    with pytest.raises(KzooError, match="smaller --size"):
        check_memory(CompiledNetwork(net), size, "float32", free=10**8, margin=16)
    small = needed_memory(net, (1000, 1000), None, "float32")
    check_memory(CompiledNetwork(net), (1000, 1000), "float32", free=small, margin=400)
    with pytest.raises(KzooError, match=r"of which --margin adds 400 at each side, .* smaller --margin or --size"):
        check_memory(
            CompiledNetwork(net, 128),
            (1000, 1000),
            "float32",
            free=needed_memory(net, (200, 200), 128, "float32"),
            margin=400,
        )
