"""What NeMo compiles while it is imported is compiled when it is first called."""

from systems.nemo.quiet import _later


def compiler(log):
    def compile_now(function, **options):
        log.append((function.__name__, options))
        return function

    return compile_now


def test_compiled_once_at_the_first_call():
    log = []
    absolute = _later(compiler(log), abs, dynamic=True)
    assert log == []
    assert [absolute(-2), absolute(3)] == [2, 3]
    assert log == [("abs", {"dynamic": True})]


def test_as_a_decorator_with_options():
    log = []

    @_later(compiler(log), mode="default")
    def double(x, times=2):
        return x * times

    assert double.__name__ == "double"
    assert double(4, times=3) == 12
    assert log == [("double", {"mode": "default"})]
