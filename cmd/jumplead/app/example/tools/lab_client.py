"""What the stock Python clients make of a node of type lab.tools.Allowed."""

import click
from jumpstarter.client import DriverClient


class Tools(DriverClient):
    def execute(self, command, *args):
        """Run a command of the harness; returns code, stdout, stderr and truncated."""
        return self.call("execute", command, *args)

    def cli(self):
        @click.command(help="Run a command of the harness")
        @click.argument("command")
        @click.argument("args", nargs=-1)
        def tools(command, args):
            result = self.execute(command, *args)
            click.echo(result["stdout"], nl=False)
            click.echo(result["stderr"], nl=False, err=True)
            click.get_current_context().exit(int(result["code"]))

        return tools
