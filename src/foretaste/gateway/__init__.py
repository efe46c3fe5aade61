"""The gateway: a guard in front of a model server, over the Open Inference Protocol v2.

It needs the extra ``foretaste[serve]``. ``server.run`` starts it; ``app.create_app`` gives the ASGI application.
"""
