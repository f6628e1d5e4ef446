"""What the Hugging Face hub and its client raise, in our words."""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import errors
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalTokenNotFoundError

from davir_ray.errors import RecipeError, Unreachable

NO_ANSWER: tuple[type[Exception], ...] = (errors.HTTPError, OSError)  # type: ignore[attr-defined]
"""What the client's own HTTP library raises, whichever that is in its version."""


@contextmanager
def reaching_hub(repo: str) -> Iterator[None]:
    """Raise `RecipeError` for a wrong name or no token, `Unreachable` where the hub refuses or does not answer."""
    try:
        yield
    except HFValidationError as error:
        raise RecipeError(
            f"{repo}: is no name of a data set on the hub; expected OWNER/NAME ({error})"
        ) from error
    except LocalTokenNotFoundError as error:
        raise RecipeError(
            "the hub asks for a token; `hf auth login` keeps one, or give it in HF_TOKEN"
        ) from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        remedy = "; `hf auth login` with a token that may do it" if status in (401, 403, 404) else ""
        raise Unreachable(f"{repo}: the hub refuses ({status}): {_first_line(error)}{remedy}") from error
    except NO_ANSWER as error:
        raise Unreachable(f"{repo}: the hub cannot be reached: {_first_line(error)}") from error


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
