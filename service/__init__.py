"""The HTTP service and the command line of Kanscope, on top of the model core `kanmodel`, which has all the maths.

Each package has one subject, and imports only packages listed below it; import-linter checks that.

cli, commands       the command line
batch               batch explanation of whole tables
engines             worker processes, and Ray
app                 the application factory
routes              one module per resource; handlers only translate
document            the OpenAPI document
requests            parsing and validation of requests, with a place for each error
work                scheduling, batching, caching and computation
schemas             models of requests and responses, one module per resource
telemetry           metrics, logs and traces
models              the registry of served models
http                server, API keys, errors and encoding, common to all routes
settings            all settings

explorer contains the files of the page at /explorer, bundled the default model.
"""
