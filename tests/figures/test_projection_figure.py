"""The picture of a projection."""

from fkdrift.estimators.projection import Projection
from fkdrift.figures.projection import projection_figure
from tests.systems import generator, random_state


def test_three_panels_with_labels() -> None:
    system, process = random_state("double_well", 0.1)
    g = generator()
    projection = Projection(
        process, system.initial_walkers(64, g), time_scale=0.1, n_walkers=96, n_populations=4, n_settling=2
    )
    while projection.n_blocks < 4:
        projection.advance(g)
    found = projection.energy()
    trace = projection.trace()
    figure = projection_figure(found, trace, exact=1.0)
    assert len(figure.axes) == 3
    assert all(axes.get_xlabel() and axes.get_ylabel() and axes.get_title() for axes in figure.axes)
    texts = [text.get_text() for text in figure.axes[0].get_legend().get_texts()]
    assert f"projected {found.energy}" in texts
    assert "exact 1" in texts
    assert len(figure.axes[0].lines[0].get_xdata()) == len(trace.time)
