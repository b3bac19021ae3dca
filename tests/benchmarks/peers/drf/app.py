"""Tasks on Django REST framework: simplejwt, ListAPIView and ModelSerializer, over psycopg 3.

In this folder, with DATABASE_URL set, after seed.py:

    gunicorn app:app --bind 127.0.0.1:PORT --worker-class gthread --workers 1 --threads 8 --no-control-socket
"""

import os

from django.core.wsgi import get_wsgi_application

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "settings")
app = get_wsgi_application()
