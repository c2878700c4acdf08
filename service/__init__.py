"""The HTTP service and the command line of Kanscope, on top of the model core `kanmodel`, which has all the maths.

Each package has one subject, and imports only packages listed below it; import-linter checks that.

cli, commands       the command line
engines             worker processes
app                 the application factory
batch               batch explanation of whole tables
operations          one file per operation: its request, how it is computed, its answer
document            the OpenAPI document
work                scheduling, batching, caching and computation
models              the registry of served models
telemetry           metrics, logs and traces
wire                connections, API keys, bodies, media types and errors
settings            all settings

explorer contains the files of the page at /explorer, bundled the default model.
"""
