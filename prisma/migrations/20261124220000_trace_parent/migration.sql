-- W3C traceparent of what caused a desired document: whoever sends it continues that trace.
ALTER TABLE "assignments" ADD COLUMN "trace_parent" TEXT;
