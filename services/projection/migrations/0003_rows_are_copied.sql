-- A batch's rows come by COPY into a temporary table.
DROP TYPE message_row;
