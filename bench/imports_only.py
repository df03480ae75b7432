"""What `heartbeat send` is measured against: the libraries it stands on, and nothing done with them."""

import pydantic
import typer

import convex


class Heartbeat(pydantic.BaseModel):
    """One model: defining the first costs what importing pydantic puts off."""

    agent: str


assert convex and typer
