"""What requests and answers are: each declared once, for the JSON, the OpenAPI document and the site."""

from service.answers import table as table
