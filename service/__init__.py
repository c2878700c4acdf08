"""The HTTP side of Kanscope: it translates, limits and reports, and leaves the maths to `kanmodel`.

A room has one subject, and imports only what stands below it here; import-linter holds that.

cli, commands       the command line
batch               whole tables
engines             several processes, and Ray
app                 settings in, an app out
routes              one file a resource; handlers only translate
document            the OpenAPI document
requests            what a request asks, with a place for each error
work                everything that computes
schemas             what requests and answers look like, one file a resource
telemetry           metrics, logs, the record of each request
models              the checkpoints that are served
http                server, keys, errors, encoding: what holds whatever is asked
settings            every setting

explorer holds the files of the page at /explorer, bundled the model that serves where there is no other.
"""
